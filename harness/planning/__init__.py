"""What a layout costs before it is run: memory of every stage, bytes between ranks, and which layout to take.

Takes a case and gives numbers; nothing is run and no framework is imported. What is estimated and what is exact is said
with each number.
"""
