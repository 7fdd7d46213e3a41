import re

from passgrad_book.build import paths

from .conftest import cited


def keys():
    text = (paths.root() / "book" / "references.bib").read_text()
    return re.findall(r"^@\w+\{([^,\s]+),", text, re.MULTILINE)


def sources():
    root = paths.root()
    return [*(root / "book").glob("*.md"), *(root / "notebooks").glob("*.py")]


def test_keys_are_unique_and_sorted():
    assert keys() == sorted(set(keys()))


def test_every_cited_key_is_in_the_bibliography():
    for source in sources():
        assert cited(source) <= set(keys()), source.name


def test_every_entry_is_cited():
    used = set().union(*(cited(source) for source in sources()))
    assert set(keys()) - used == set()


def test_every_entry_leads_to_its_text():
    text = (paths.root() / "book" / "references.bib").read_text()
    entries = re.split(r"^@", text, flags=re.MULTILINE)[1:]
    for entry in entries:
        source = r"(url\s*=\s*\{https://|eprint\s*=\s*\{\d{4}\.\d{5}\})"
        assert re.search(source, entry), entry.splitlines()[0]
