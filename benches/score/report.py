"""What is printed: the table, the misses in groups, and a file of all of them."""

import collections
import json
import pathlib
import re

from verdict import Verdict

EXAMPLES = 2
# What differs from note to note of one kind.
NAMES = [
    (r'"(?:[^"]|"")*"|\'[^\']*\'|`[^`]*`|[\w$"]+(?:\.[\w$"]+)+|\d+', "…"),
    (r"^((?:unknown|ambiguous|the) [a-z]+) [\w$…]+", r"\1 …"),
    (r"^[\w$…]+ is a", "… is a"),
    (r" at Line: …, Column: …", ""),
]
GROUPS_MAX = 60
SHOWN_MAX = 300
HEAD = ["suite", "statements", "tables %", "reads %", "writes %", "all exact %", "misses", "flagged", "SILENT",
        "exact but flagged"]


def table(verdicts: dict[str, list[Verdict]]) -> str:
    lines = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    suites = dict(verdicts)
    if len(suites) > 1:
        suites["all"] = [each for found in verdicts.values() for each in found]
    for name, found in suites.items():
        share = lambda part: percent(sum(part not in each.wrong for each in found), len(found))  # noqa: E731,B023
        misses = [each for each in found if not each.exact]
        flagged = sum(each.flagged for each in misses)
        row = [name, len(found), share("tables"), share("reads"), share("writes"),
               percent(len(found) - len(misses), len(found)), len(misses), flagged, len(misses) - flagged,
               sum(each.exact and each.flagged for each in found)]
        lines.append("| " + " | ".join(map(str, row)) + " |")
    return "\n".join(lines)


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}" if whole else "-"


def write_misses(verdicts: list[Verdict], path: pathlib.Path) -> None:
    """Silent ones first."""
    with open(path, "w") as out:
        for each in sorted((each for each in verdicts if not each.exact), key=lambda each: each.flagged):
            out.write(json.dumps(each.shown()) + "\n")


def groups(verdicts: list[Verdict]) -> str:
    silent = [each for each in verdicts if not each.exact and not each.flagged]
    flagged = [each for each in verdicts if not each.exact and each.flagged]
    cautious = [each for each in verdicts if each.exact and each.flagged]
    return "\n\n".join([
        section("Silent misses, by how they differ and their first words", silent, lambda each: (shape(each), words(each))),
        section("Flagged misses, by first note", flagged, lambda each: notes(each).partition("; ")[0]),
        section("Flagged misses, by all notes", flagged, notes),
        section("Flagged misses, by how they differ and their first words", flagged,
                lambda each: (shape(each), words(each))),
        section("Exact but flagged, by note", cautious, notes),
    ])


def section(title: str, verdicts: list[Verdict], key) -> str:
    found = collections.defaultdict(list)
    for each in verdicts:
        found[key(each)].append(each)
    lines = [f"## {title}: {len(verdicts)} in {len(found)} groups"]
    for name, members in sorted(found.items(), key=lambda item: -len(item[1]))[:GROUPS_MAX]:
        lines.append(f"\n{len(members):6} {' / '.join(name) if isinstance(name, tuple) else name}")
        lines += [example(each) for each in members[:EXAMPLES]]
    return "\n".join(lines)


def example(verdict: Verdict) -> str:
    text = re.sub(r"\s+", " ", verdict.statement)[:SHOWN_MAX]
    differs = "".join(f"\n           {sign} {name}: {', '.join(each)[:SHOWN_MAX]}" for sign, part in
                      (("-", verdict.missing), ("+", verdict.extra)) for name, each in part.items())
    return f"         [{verdict.suite} {verdict.test}] {text}{differs}"


def shape(verdict: Verdict) -> str:
    """As in `-reads +tables`; what is only beneath views, rules or policies in brackets."""
    named = verdict.truth.named.parts()
    lacks = [f"-{name}" if set(each) & named[name] else f"-({name})" for name, each in verdict.missing.items()]
    return " ".join([*lacks, *(f"+{name}" for name in verdict.extra)])


def words(verdict: Verdict) -> str:
    text = re.sub(r"(?s)/\*.*?\*/|--[^\n]*", " ", verdict.statement)
    return " ".join(re.findall(r"[A-Za-z_]+", text)[:2]).upper()


def notes(verdict: Verdict) -> str:
    """Those that may be why, without names, numbers and quoted text."""
    said = [note for note in verdict.notes if not re.match(r"(defined|planned) only", note)]
    for pattern, text in NAMES:
        said = [re.sub(pattern, text, note) for note in said]
    return "; ".join(sorted(set(said))) or "(no note)"
