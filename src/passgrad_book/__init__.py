"""The book and the artifact: what they are computed by and made with; ``passgrad`` knows none of
it.
"""
