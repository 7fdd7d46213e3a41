"""The computations behind the book, a room a subject: what is stored under data/results and how."""
