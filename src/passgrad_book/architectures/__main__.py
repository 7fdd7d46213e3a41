"""``python -m passgrad_book.architectures`` writes the tables of the page anew."""

from passgrad_book.architectures.table import write

write()
