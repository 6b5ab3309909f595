"""Faults while a cycle runs: nothing wrong is done, nothing is lost, and whatever is missing is said.

    fault                               proven in
    ----------------------------------  --------------------------------------------------------------------------
    throttling at one call a second     test_slow_aws; of each single call: test_aws_fails, tests.providers.aws
    5xx                                 test_aws_fails (listing, telemetry, the second look, the act), test_client
    time-outs                           test_slow_sources (whole sources), test_slow_aws (a region, at shutdown),
                                        test_progress (seen while they last),
                                        tests.providers.test_questions (regions of many accounts)
    half-answers                        test_aws_fails (cut off, second page missing), tests.providers.aws.test_client
    one region gone                     test_aws_fails, tests.spine.test_untouched, tests.spine.test_people
    an answer that is lost              test_aws_fails (done, and answered 500), tests.spine.test_crash
    mail dead for an hour               test_mail_fails; channels one by one: tests.notify.test_outbox
    database gone and back              test_database_fails (at every moment of a cycle, and silent)
    the process dies                    tests.spine.test_crash (at every instant), tests.e2e.test_spine_on_aws
    the process is told to end          test_slow_aws
    the clock jumps                     test_clock_jumps (real telemetry), tests.spine.test_outcomes (simulated)
    two services on one database        test_two_services (processes, killed), tests.spine.test_two_instances
    the inventory suddenly shrinks      tests.spine.test_breaker, tests.spine.test_limits

Against the same throttling Cloud Custodian is in `bench/throttled.py`.
"""
