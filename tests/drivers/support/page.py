"""A person at the gateway's own page for waiting logins, as a browser without scripts would use it."""

import html
import re
import urllib.parse

from .provider import Browser, _Forms, _text


class PageBrowser(Browser):
    """Opens the link of a terminal, types its code, signs in at the provider, and answers.

    As browsers do, it says where a form comes from (`Sec-Fetch-Site`), and follows what a page leads on to.
    """

    def __init__(self, person: str):
        super().__init__(person)
        self._opener.addheaders = [("Sec-Fetch-Site", "same-origin")]

    def asked(self, link: str, code: str) -> tuple[str, str]:
        """As far as the question whether to approve; where it stands and what it shows."""
        at, page = self._open(link)
        assert "<script" not in page
        [form] = _forms(page)
        at, page = self._open(urllib.parse.urljoin(at, form["action"]), {"code": code})
        led = re.search(r'http-equiv="refresh" content="0;url=([^"]+)"', page)
        if not led:
            raise RuntimeError(f"the code was not taken: {_text(page)}")
        at, page = self._open(urllib.parse.urljoin(at, html.unescape(led.group(1))))
        while not at.startswith(link):
            [form, *_] = _forms(page)
            fields = form["fields"]
            if "login" in fields:
                fields.update(login=self.person, password="any")
            at, page = self._open(urllib.parse.urljoin(at, form["action"]), fields)
        return at, page

    def answer(self, link: str, code: str, word: str) -> str:
        """Answers `approve` or `deny`; the text of the last page."""
        at, page = self.asked(link, code)
        [form] = _forms(page)
        _, page = self._open(urllib.parse.urljoin(at, form["action"]), {**form["fields"], "answer": word})
        return _text(page)

    def look(self, link: str) -> str:
        """The text of the page as anybody sees it who has the link."""
        return _text(self._open(link)[1])


def _forms(page: str) -> list[dict]:
    reader = _Forms()
    reader.feed(page)
    if not reader.forms:
        raise RuntimeError(f"a form was expected: {_text(page)}")
    return reader.forms
