"""What must not be taken apart: code, JSON, URLs, numbers with their units, citations, instructions."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from json import JSONDecodeError

from costopt.compression.result import Span
from costopt.errors import ConfigError

__all__ = [
    "DEFAULT_KINDS",
    "Protect",
    "checked",
    "code_spans",
    "json_spans",
    "merge",
    "named_spans",
    "protected_spans",
    "touches",
]

DEFAULT_KINDS = ("code", "json", "urls", "numbers", "citations", "instructions")
"""Every kind that `protected_spans` knows."""

Protect = str | re.Pattern[str] | Span
"""A kind by name, a literal text, a pattern, or a span of one document."""

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})([^\n]*)$", re.MULTILINE)
_CODE_TAG = re.compile(r"<(pre|code|script|style)\b[^>\n]{0,200}>", re.IGNORECASE)
_ORDER_TAG = re.compile(r"<(instructions?|rules|system|task|format|constraints)\b[^>\n]{0,200}>", re.IGNORECASE)
_INLINE_CODE = re.compile(r"(?<!`)(`{1,2})(?!`)[^\n`](?:[^\n]*?[^\n`])?\1(?!`)")
# A block set off by four blanks or a tab after a blank line, as in Markdown; a list item indented so is none.
_INDENTED = re.compile(r"(?:\A|\n[ \t]*\n)((?:(?: {4}|\t)(?![ \t]*(?:[-*+•]|\d+[.)])[ \t])[^\n]*\S[^\n]*(?:\n|\Z))+)")
_CODE_LIKE = re.compile(r"[;{}()=<>\[\]$]|^\s*(?:def|class|import|from|return|if|for)\b|^\s*#", re.MULTILINE)

_URL = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:https?|ftp|file|s3|wss?|git|ssh)://|www\.|mailto:|doi:\s?(?=10\.))[^\s<>\"'`，。）】」]+"
    r"|(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64})+"
)
_URL_END = ".,;:!?'\"*_"

_UNITS = (
    "km/h|m/s|mg/[lL]|g/[lL]|kWh|km²|percent|per cent|Prozent|процент(?:а|ов)?|%|‰|°\\s?[CFK]?"
    "|[kMGTPmµμn]?(?:Hz|W|Wh|V|A|J|Pa|eV|bar|bit|bps|B|g|m|s|L|l|mol)"
    "|[KMGT]i?B|mph|m²|m³|cm|mm|km|kg|mg|ml|dl|t|lbs?|oz|ft|mi|yd|ha|acres?|psi|rpm|fps|dpi|px"
    "|h|hrs?|hours?|min|mins|minutes?|secs?|seconds?|ms|days?|weeks?|months?|years?"
    "|Stunden?|Minuten?|Sekunden?|Tagen?|Tage?|Wochen?|Monaten?|Jahren?"
    "|thousand|million|billion|trillion|mn|bn|tn|k|M|bps|Tausend|Mio\\.?|Mrd\\.?|Million(?:en)?|Milliarden?"
    "|тыс\\.?|млн\\.?|млрд\\.?|тысяч[аи]?|миллион(?:а|ов)?|миллиард(?:а|ов)?|кг|км|см|мм|год(?:а|у|ов)?|лет|руб\\.?"
    "|USD|EUR|GBP|JPY|CHF|CNY|RUB|US\\$|dollars?|euros?|cents?|Euro|[$€£¥₽₹]"
)
_NUMBER = re.compile(
    r"(?:(?:US|CA|AU|HK|NZ|R)?[$€£¥₽₹₩]\s?|\b(?:USD|EUR|GBP|JPY|CHF|CNY|RUB)\s?|[~≈<>≤≥±§#№]\s?)?"
    r"(?<![\w])(?:[-+−]\s?(?=[\d.]))?"
    r"(?:(?:[A-Za-zЀ-ӿΑ-ω]{1,24}[-–]){0,3}[A-Za-zЀ-ӿΑ-ω_]{0,24}\d|\.\d|[½⅓⅔¼¾])"
    r"(?:[A-Za-z0-9Ѐ-ӿΑ-ω_½⅓⅔¼¾]|[.,:/'’·×^–−-](?=\w)|(?<=\d)[ \u00a0\u202f](?=\d{3}(?!\d)))*"
    rf"(?:[ \u00a0\u202f]?(?:{_UNITS})(?![A-Za-zЀ-ӿ])(?:\s?(?:USD|EUR|GBP|dollars?|euros?|Euro)\b)?"
    r"|[年月日号時时分秒岁歳个個人名次年代万萬亿億元円圆％度米]{1,3})?"
)
# Where a number follows directly on letters of a script without blanks.
_NUMBER_CJK = re.compile(
    r"(?<=[\u3040-\u30ff\u3400-\u9fff])\d[\d.,:/-]*(?:[年月日号時时分秒岁歳个個人名次万萬亿億元円圆％%度米]{1,3})?"
)

_CITATION = re.compile(
    r"\[(?:\^?[\w-]{1,12}|\d+(?:\s?[,;–-]\s?\d+)*|@[\w:.-]+(?:;\s?@[\w:.-]+)*)\](?!\()"
    r"|\((?:[^()\n]{0,120}?\b)?(?:1[5-9]|20)\d\d[a-z]?(?:,\s?(?:p\.|pp\.|S\.)\s?\d+(?:[–-]\d+)?)?\)"
    r"|\\(?:cite|citep|citet|ref)\{[^}\n]+\}"
    r"|\b(?:doi:\s?)?10\.\d{4,9}/[^\s<>\"]+[^\s<>\".,;)]"
    r"|\barXiv:\s?\d{4}\.\d{4,5}(?:v\d+)?"
    r"|\b(?:Fig(?:ure|s?\.)|Table|Tab\.|Eq(?:uation|s?\.)|Section|Sec\.|Chapter|Appendix|Art(?:icle|\.)|Abb\.|Tabelle"
    r"|Рис\.|Табл\.)\s?\d+(?:\.\d+)*[a-z]?\b"
)

_INSTRUCTION = re.compile(
    r"^[ \t]*(?:(?:[-*•>#]+|\d+[.)])[ \t]+)?(?:\*\*)?(?:"
    r"(?:you (?:are (?:a|an|the)\b|must|should|will be|may (?:not|only))|your (?:task|job|role|goal)\b)"
    r"|(?:please\s+)?(?:do not|don't|never|always|only) (?:\w+)"
    r"|(?:please\s+)?(?:answer|respond|reply|return|output|write|format|summari[sz]e|translate|classify|extract|cite"
    r"|use only) (?:in|with|as|only|using|the following|exactly|at most|no more|your|the question|based|concisely"
    r"|briefly|strictly)\b"
    r"|(?:important|instructions?|rules?|constraints?|output format|system|format)\s*:"
    r"|(?:antworte|antworten sie|du bist|sie sind ein|verwende nur)\b"
    r"|(?:отвечай|ответь|ответьте|ты\s|вы должны|используй)"
    r"|(?:请|你是|必须|不要|只能|回答时)"
    r")[^\n.!?。！？]*[.!?。！？]?",
    re.MULTILINE | re.IGNORECASE,
)

_JSON_START = re.compile(r"(?:(?<=[\s:=(,>])|^)(?:\{(?=\s*[\"}])|\[(?=\s*[\[{\"\-\d\]tfn]))", re.MULTILINE)
_JSON_EFFORT = 8  # characters looked at for each one of the text, before the search is given up


def protected_spans(text: str, protect: Iterable[Protect] = DEFAULT_KINDS) -> list[Span]:
    """Find what must not be taken apart.

    Args:
        text: One document.
        protect: Kinds by name ("code", "json", "urls", "numbers", "citations", "instructions"), literal texts (each
            place where they stand), compiled patterns, and spans; a span that reaches beyond the text is cut to it.

    Returns:
        Spans in order; those that overlap are joined.

    Raises:
        ConfigError: Something in `protect` is none of these.

    Example:
        >>> text = "Revenue rose 12.5 % to $3.14M, see https://example.com/q3 [4]."
        >>> [text[start:end] for start, end in protected_spans(text)]
        ['12.5 %', '$3.14M', 'https://example.com/q3', '[4]']
    """
    found: list[Span] = []
    given = checked(protect)
    # In JSON a list of numbers is no citation.
    data = list(json_spans(text)) if "citations" in given and _has(text, "{", "[") else []
    for each in given:
        if each == "citations":
            found.extend(span for span in _KINDS["citations"](text) if not touches(span, data))
        elif isinstance(each, str) and each in _KINDS:
            found.extend(_stripped(text, _KINDS[each](text)))
        else:
            found.extend(_named(text, each))
    return merge(found)


def named_spans(text: str, protect: Iterable[Protect]) -> list[Span]:
    """The spans of what is named itself, by text, pattern or span, and not by kind."""
    return merge(span for each in checked(protect) if each not in DEFAULT_KINDS for span in _named(text, each))


def checked(protect: Iterable[Protect]) -> list[Protect]:
    """`protect` as a list; raises ConfigError if something in it cannot be meant."""
    given: list[Protect] = [protect] if isinstance(protect, str | re.Pattern) else list(protect)
    for each in given:
        literal = isinstance(each, str | re.Pattern) and each != ""
        if not literal and not (isinstance(each, tuple) and len(each) == 2 and all(type(at) is int for at in each)):
            raise ConfigError(
                f"protect: {each!r} is no kind ({', '.join(DEFAULT_KINDS)}), text, compiled pattern or (start, end)"
            )
        if f"{each}s" in DEFAULT_KINDS:
            raise ConfigError(f"protect: the kind is {f'{each}s'!r}; for the word itself give re.compile({each!r})")
    return given


def merge(spans: Iterable[Span]) -> list[Span]:
    """Sorted, with those that overlap joined and empty ones left out.

    Example:
        >>> merge([(5, 9), (0, 2), (8, 12), (2, 2)])
        [(0, 2), (5, 12)]
    """
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        elif start < end:
            joined.append((start, end))
    return joined


def _stripped(text: str, spans: Iterable[Span]) -> Iterator[Span]:
    """Without the white space at both ends, which is nobody's."""
    for start, end in spans:
        part = text[start:end]
        yield start + len(part) - len(part.lstrip()), start + len(part.rstrip())


def touches(span: Span, spans: Sequence[Span]) -> bool:
    """Whether one of `spans`, which `merge` gave, has a character of `span`."""
    at = bisect_left(spans, (span[1],)) - 1
    return at >= 0 and spans[at][1] > span[0]


def _named(text: str, each: Protect) -> Iterator[Span]:
    if isinstance(each, tuple):
        yield max(0, each[0]), min(len(text), each[1])
        return
    pattern = re.compile(re.escape(each)) if isinstance(each, str) else each
    for match in pattern.finditer(text):
        yield match.span()


def code_spans(text: str) -> list[Span]:
    """Blocks of code: fenced, in a tag such as <pre>, or indented as in Markdown."""
    found = list(_fenced(text)) + list(_tagged(text, _CODE_TAG))
    for match in _INDENTED.finditer(text):
        if _CODE_LIKE.search(match.group(1)):
            found.append((match.start(1), match.start(1) + len(match.group(1).rstrip())))
    return merge(_stripped(text, found))


def _code(text: str) -> Iterator[Span]:
    yield from code_spans(text)
    if "`" in text:
        yield from (match.span() for match in _INLINE_CODE.finditer(text))


def _instructions(text: str) -> Iterator[Span]:
    yield from _tagged(text, _ORDER_TAG)
    yield from (match.span() for match in _INSTRUCTION.finditer(text))


def _fenced(text: str) -> Iterator[Span]:
    """From each fence to the next that closes it; one that nothing closes reaches to the end."""
    start, opened = -1, ""
    for match in _FENCE.finditer(text) if _has(text, "```", "~~~") else ():
        fence, rest = match.groups()
        if start < 0:
            start, opened = match.start(), fence
        elif fence.startswith(opened) and not rest.strip():
            yield start, match.end()
            start = -1
    if start >= 0:
        yield start, len(text.rstrip())


def _tagged(text: str, tags: re.Pattern[str]) -> Iterator[Span]:
    """From each of these tags to the next that closes it; one that nothing closes is passed over."""
    at = 0
    unclosed: set[str] = set()
    for match in tags.finditer(text) if "<" in text else ():
        tag = match.group(1)
        if match.start() < at or tag in unclosed:
            continue
        close = text.find(f"</{tag}>", match.end())
        if close < 0:
            unclosed.add(tag)  # nor does anything close a later one: no need to look again
        else:
            at = close + len(tag) + 3
            yield match.start(), at


def _has(text: str, *marks: str) -> bool:
    return any(mark in text for mark in marks)


def json_spans(text: str) -> Iterator[Span]:
    """Objects and arrays that are valid JSON, the outermost of each."""
    decode, effort, at = json.JSONDecoder().raw_decode, _JSON_EFFORT * len(text) + 10_000, 0
    for match in _JSON_START.finditer(text):
        start = match.start()
        if start < at:
            continue
        try:
            value, end = decode(text, start)
        except JSONDecodeError as error:
            effort -= error.pos - start + 1
        except RecursionError:
            effort -= 100_000
        else:
            at = end
            if isinstance(value, dict) or any(isinstance(each, dict | list | str) for each in value) or len(value) > 3:
                yield start, end
        if effort < 0:
            return


def _urls(text: str) -> Iterator[Span]:
    if not _has(text, "://", "www.", "@", "mailto:", "doi:"):
        return
    for match in _URL.finditer(text):
        found = match.group().rstrip(_URL_END)
        while found.endswith((")", "]", "}")) and found.count(found[-1]) > found.count("([{"[")]}".index(found[-1])]):
            found = found[:-1].rstrip(_URL_END)
        yield match.start(), match.start() + len(found)


def _numbers(text: str) -> Iterator[Span]:
    for pattern in (_NUMBER, _NUMBER_CJK):
        for match in pattern.finditer(text):
            yield match.span()


def _matching(pattern: re.Pattern[str]) -> Callable[[str], Iterator[Span]]:
    return lambda text: (match.span() for match in pattern.finditer(text))


_KINDS: dict[str, Callable[[str], Iterator[Span]]] = {
    "code": _code,
    "json": json_spans,
    "urls": _urls,
    "numbers": _numbers,
    "citations": _matching(_CITATION),
    "instructions": _instructions,
}
