"""Reads an HTML page of a report, for the tests of what is in it."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = ('meta', 'img', 'path', 'use', 'br')  # tags without an end


class Page(HTMLParser):
    """Checks that tags are closed in order and no id is used twice, and keeps the parts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.images: list[dict] = []
        self.tables: list[list[list[str]]] = []
        self.headings: list[str] = []
        self.words = ''
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if 'id' in given:
            assert given['id'] not in self.ids, given['id']
            self.ids.add(given['id'])
        if tag == 'img':
            self.images.append(given)
        elif tag == 'table':
            self.tables.append([])
        elif tag == 'tr':
            self.tables[-1].append([])
        elif tag in ('td', 'th'):
            self.tables[-1][-1].append('')
        elif tag == 'h2':
            self.headings.append('')
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data
        if {'td', 'th'} & set(self.open):
            self.tables[-1][-1][-1] += data
        if self.open and self.open[-1] == 'h2':
            self.headings[-1] += data
