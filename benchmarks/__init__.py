"""What is measured, not asserted: ``python -m benchmarks [loop|intake|storm|memory|startup|recorded …]``.

Every table says how often it measured, and compares with a reference taken in the same run.
"""
