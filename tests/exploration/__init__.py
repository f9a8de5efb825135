"""What nobody thought of: programs and bytes that no test has written down, against properties that always hold.

Each module has its property in one sentence at the top. What CI runs of it, in seconds and always the same, is in
``test_exploration``; ``python -m tests.exploration NAME --seconds N`` goes on for as long as one likes.
"""
