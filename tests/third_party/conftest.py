"""The example package has tests of its own, which need it installed: tests/test_third_party.py runs them."""

collect_ignore = ["ganzoo-example"]
