"""One statement's verdict: our record against the truth."""

import dataclasses

from truth import Touched, Truth


@dataclasses.dataclass
class Verdict:
    """`wrong` names the parts that differ; of each, `missing` is what the record lacks, `extra` what it invents."""

    suite: str
    test: str
    statement: str
    analysis: str
    notes: list[str]
    ours: Touched
    truth: Truth
    wrong: list[str]
    missing: dict[str, list[str]]
    extra: dict[str, list[str]]

    @property
    def exact(self) -> bool:
        return not self.wrong

    @property
    def flagged(self) -> bool:
        return self.analysis != "exact"

    def shown(self) -> dict:
        return {"suite": self.suite, "test": self.test, "statement": self.statement, "analysis": self.analysis,
                "notes": self.notes, "wrong": self.wrong, "missing": self.missing, "extra": self.extra,
                "truth": self.truth.named.shown(), "expanded": self.truth.all.shown(), "ours": self.ours.shown()}


def judge(suite: str, test: str, record: dict, truth: Truth) -> Verdict:
    """Right is what the text names and what views, rules and policies add to it. A table that the statement makes is
    named by us alone; what is reached through a function, which `via` then names, the server does not tell, nor what views,
    rules and policies add where it refuses to put them in (a policy that needs itself)."""
    list_of = lambda field: set(record.get(field) or ())  # noqa: E731
    ours = Touched(list_of("tables"), list_of("reads") | list_of("filters"), list_of("writes"))
    through = bool(list_of("via") - truth.all.tables) or truth.refused
    wrong, missing, extra = [], {}, {}
    for name, mine in ours.parts().items():
        right = truth.all.parts()[name]
        lacks, more = right - mine, mine - right
        if truth.target is not None:
            more = {each for each in more if not makes(each, truth.target, name)}
        if through:
            more = set()
        if lacks or more:
            wrong.append(name)
        if lacks:
            missing[name] = sorted(lacks)
        if more:
            extra[name] = sorted(more)
    return Verdict(suite, test, record.get("sql") or record.get("statement"), record.get("analysis") or "unresolved",
                   record.get("analysis_notes") or record.get("notes") or [], ours, truth, wrong, missing, extra)


def makes(name: str, target: str, part: str) -> bool:
    """Whether a name is that of the table that the statement makes, or of one of its columns."""
    path = name.replace('"', "").split(".")
    return target.replace('"', "") in (path[1:2] if part == "tables" else path[1:-1])
