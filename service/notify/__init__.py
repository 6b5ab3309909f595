"""How people are told: words, links and channels. Nothing here decides what is said to whom; the pipeline does."""
