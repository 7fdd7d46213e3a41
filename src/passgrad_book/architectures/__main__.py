"""``python -m passgrad_book.architectures`` writes the table of the book anew."""

from passgrad_book.architectures.table import write

write()
