"""All tables and all SQL. Nothing outside this package writes SQL, nothing inside it calls a cloud."""
