"""Cheap lexical vetoes: "these two texts cannot want the same answer", whatever their embeddings say.

A sentence embedding hardly sees a number, a negation, a name or an order of words. Each guard looks at one of
these and forbids serving when both texts commit to different things. A guard speaks up only when it is nearly
sure; what it lets pass is for the judge to decide.

    number     numbers, versions, years, dates         unit       km/miles, C/F, USD/EUR, per day/per month
    quote      quotes, code, URLs, paths, site:        language   script, language, "translate to ..."
    negation   not, never, without                     direction  opposites, reversed roles, from A to B
    name       one entity in place of another          scope      kind of question, output format
    passage    the same long passage, another question

Every pattern is linear in the text.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from types import MappingProxyType

__all__ = ["GUARDS", "MAX_CHARS", "Features", "features", "veto"]

MAX_CHARS = 4000
"""Longer texts are not looked at: the cache serves texts beyond the embedding's window on exact match only."""

_PASSAGE = 12  # words in a row that two questions share only if both carry the same passage
_SLOT = 3  # words that may stand in one place of an otherwise equal sentence


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _heads(text: str) -> dict[str, str]:
    """Each word to the first of its group; groups are parted by bars."""
    return {word: group.split()[0] for group in text.split("|") for word in group.split()}


def _axes(text: str) -> dict[str, tuple[tuple[int, int], ...]]:
    """Each word to its (axis, pole) pairs; axes are parted by semicolons, poles by bars."""
    found: dict[str, tuple[tuple[int, int], ...]] = {}
    for axis, line in enumerate(text.split(";")):
        for pole, words in enumerate(line.split("|")):
            for word in words.split():
                found[word] = (*found.get(word, ()), (axis, pole))
    return found


def _ordinals(text: str) -> dict[str, str]:
    """Each word to the place of its group, from 0."""
    return {word: str(place) for place, group in enumerate(text.split("|")) for word in group.split()}


def _by_language(text: str) -> dict[str, frozenset[str]]:
    lines = (line.partition(":") for line in text.split(";"))
    return {name.strip(): _words(words) for name, _, words in lines}


def _units_by_word(text: str) -> dict[str, tuple[str, str]]:
    """Each word to (dimension, unit)."""
    lines = (line.partition(":") for line in text.split(";"))
    return {word: (name.strip(), unit) for name, _, words in lines for word, unit in _heads(words).items()}


# --- lexicon ------------------------------------------------------------------------------------------------------

# Function words, which no question is about.
_STOP = _words(
    """a an the this that these those it its i me my mine we us our you your he she him her they them their his is are
    was were be been being am do does did done doing has have had having will would shall should can could may might
    must of in on at by for with from to into onto as and or but if then than so such there here what which who whom
    whose when where why how not no don doesn isn aren can't cannot up about out off over under among between during
    through within per via vs versus also too just even still yet ever any some all each every both either neither
    own same other others another more most much many few less least lot lots very really quite i'm i've i'd i'll
    it's what's how's who's that's let's you're they're we're one one's someone somebody anyone oneself myself
    yourself themselves s t re ve ll d m etc without please kindly thanks thank"""
)
# Words that frame a request but do not say what it is about.
_FRAME = _words(
    """way ways tip tips trick tricks advice guide list thing things stuff people person example examples use uses used
    using get getting got gets give show tell explain explained describe mean meaning meant means need needs want
    wants like think know known make made making help helps work works best good better great greatest nice easiest
    easy easily simple simplest method methods process technique techniques idea ideas suggestion suggestions kind
    kinds type types possible able actually please exactly different various certain common popular interesting
    favorite favourite time times ever go going come comes look looking take put let try keep become happen happens
    happened cause causes reason reasons result results main major actual real basic basics name names called call
    resource resources order way's say says said anything something everything today currently now proper properly
    correct right well new"""
)
_SAME = _heads(
    """buy purchase | begin start | close nearest nearby near closest | movie film | picture photo image photograph |
    fix repair solve resolve troubleshoot | remove delete erase | phone smartphone mobile cellphone | car automobile
    | lose reduce shed decrease cut curb lower minimize minimise lessen | increase improve boost raise enhance grow
    gain | handle overcome deal cope manage | create build develop design | find search locate | learn study prepare
    understand | big large huge | job career profession employment | company firm organization organisation business
    | college university institute school | country nation | kid child children | petrol gas gasoline | atm cash |
    salary pay wage income | cost price expensive | quick fast rapid speed | error issue problem trouble | fear
    afraid scared | happy happiness | sad sadness depressed depression | weird strange odd bizarre crazy | smart
    intelligent clever | pretty beautiful attractive | choose pick select decide | begin beginner newbie newcomer |
    differ difference distinction distinguish contrast compare comparison | symptom sign | trail hike hiking | novel
    book | doctor physician | house home | town city | website site webpage | app application software | math maths
    mathematics | exam test | feature characteristic trait property | benefit advantage pro pros | drawback
    disadvantage con cons | effect impact consequence affect influence | purpose goal aim objective | alive living
    life live | die death dead | marry marriage married wedding | disease illness sickness | drug medicine
    medication | power energy | usa america american | uk britain british | js javascript | ts typescript | postgres
    postgresql | k8s kubernetes | eyesight vision | exist existence | speak talk | end finish stop quit | abroad
    overseas foreign | exercise workout | rich wealthy | poor poverty | war conflict | opinion view thought |
    replace substitute swap | recover restore retrieve | hack crack | trip travel journey tour | visit go | tv
    television | bike bicycle | woman women girl female lady | man men guy boy male | big bigger | mother mom mum |
    father dad | pc computer | language languages | teach teacher | cure treat treatment heal | money currency | sex
    intercourse | question questions ask | answer answers reply | fund invest | ocean sea | meaning meanings
    definition define | significance importance significant important useful | read see seen watch watched | produce
    generate | data information info | primary main | crash accident | cancel cancelled canceled snooze | outlaw
    illegal ban | hard tough difficult | eat consume | determine calculate compute | earn make | option options
    opportunity opportunities prospect prospects | airplane aeroplane aircraft plane | arrive launch release come |
    acceptable ok okay | role responsibility duty | dispute conflict | enlarge grow | eliminate remove | relax calm
    | taxi cab | flat apartment | holiday vacation | lawyer attorney | password passcode | folder directory |
    parameter argument | invoke call | documentation docs | repository repo | configuration config | database db |
    developer programmer dev | administrator admin | baby infant | trash garbage rubbish | soccer football | view
    views visit | handset phone | hate dislike | prevent avoid | service centre center | cinema theater theatre |
    fake unreal false | customer client | staff employee employees | rent lease | sofa couch | lift elevator |
    autumn fall | amazing surprising astonishing fascinating unbelievable | career careers | unsubscribe cancel |
    weird unusual | tasty delicious | total sum overall | typical average usual | delay delayed late | shop store"""
)
_OPPOSITE = _axes(
    """increase increases raise rise rises grow more higher|decrease decreases reduce lower less fewer fall falls drop;
    before|after;enable enabled enabling activate|disable disabled disabling deactivate;latest newest recent|oldest
    earliest;formal|informal casual;cheapest cheap cheaper affordable inexpensive|expensive costliest priciest
    luxury; maximum max maximize maximise|minimum min minimize minimise;import imports importing|export exports
    exporting; buy buying purchase|sell selling;upload uploading|download downloading;encrypt encryption|decrypt
    decryption; encode encoding|decode decoding;push|pull;input inputs|output outputs;win winning|lose losing; pros
    advantages advantage benefits benefit|cons disadvantages disadvantage drawbacks drawback risks;love|hate;
    gain|lose reduce;lend lending|borrow borrowing;send sending|receive receiving;deposit|withdraw;north
    northern|south southern|east eastern|west western;start starting begin|stop stopping quit
    end;first|last;public|private; indoor indoors|outdoor outdoors;shortest short brief briefly concise|longest long
    lengthy detailed elaborate; beginner beginners newbie newbies|advanced expert
    experts;free|paid;breakfast|lunch|dinner;fastest faster fast| slowest slower slow;biggest bigger largest
    larger|smallest smaller tiny;highest high|lowest low;open opening|close closing;old older elderly|young
    younger;best|worst;better|worse;positive|negative;hot hottest|cold coldest;male man men boy boys husband|female
    woman women girl girls wife;mother mom|father dad;morning|evening|night;next upcoming|previous past
    last;strongest stronger|weakest weaker;easiest easier|hardest harder;safe safest|dangerous unsafe;add
    adding|remove removing subtract;client|server;local|remote;ascending|descending;encourage|discourage;
    credit|debit;arrival arrivals|departure departures;sum|product;derivative|integral;top|bottom;left|right;white|
    black|red|blue|green|yellow;summer|winter|spring|autumn;vertical|horizontal;synchronous sync|asynchronous async;
    present|absent;accept|reject decline;allow|forbid prohibit block;lock|unlock;single|married;healthy|unhealthy"""
)
_NUMBER = _ordinals(
    """zero | one first once single | two twice double pair couple second dual | three third triple | four fourth |
    five fifth | six sixth | seven seventh | eight eighth | nine ninth | ten tenth | eleven eleventh | twelve
    twelfth dozen"""
)
_CARDINAL = _words("two three four five six seven eight nine ten eleven twelve")
_ROMAN = dict(zip("II III IV VI VII VIII IX XI XII".split(), "2 3 4 6 7 8 9 11 12".split(), strict=True))
_SCALE = {"k": 3, "thousand": 3, "lakh": 5, "lakhs": 5, "million": 6, "mn": 6, "crore": 7, "crores": 7}
_SCALE |= {"bn": 9, "billion": 9, "trillion": 12}
_MONTHS = """january jan | february feb | march mar | april apr | may | june jun | july jul | august aug |
    september sep sept | october oct | november nov | december dec"""
_MONTH = _ordinals("|" + _MONTHS)
_DATES = _heads(
    """monday mondays | tuesday tuesdays | wednesday wednesdays | thursday thursdays | friday fridays |
    saturday saturdays | sunday sundays | yesterday | tomorrow | today tonight now current |"""
    + _MONTHS
)
for _word in ("march", "may", "mar"):  # verbs as often as months
    del _DATES[_word]
_UNIT = _units_by_word(
    """length: km kilometer kilometre kilometers kilometres kms | mile miles mi | foot feet ft | yard yards | cm
    centimeter centimetre centimeters centimetres | mm millimeter millimetre | meter metre meters metres | inch
    inches; temperature: celsius centigrade °c | fahrenheit °f | kelvin; bytes: kb kilobyte kilobytes | mb megabyte
    megabytes | gb gigabyte gigabytes | tb terabyte terabytes; mass: kg kilogram kilograms kilo kilos kgs | gram
    grams | lb lbs pound pounds | ounce ounces oz | tonne tonnes ton tons; volume: liter litre liters litres |
    gallon gallons | ml milliliter millilitre | pint pints | cup cups; money: usd dollar dollars $ | eur euro euros
    € | gbp sterling £ | inr rupee rupees rs ₹ | jpy yen ¥ | chf | cny yuan rmb | cad | aud | btc bitcoin | eth
    ethereum; angle: degree degrees | radian radians; rate: /second | /minute | hourly /hour | daily /day | weekly
    /week | monthly /month | yearly annual annually /year"""
)
# Units only right after a number; elsewhere they are something else.
_AFTER_NUMBER = _units_by_word(
    """time: second seconds sec secs | minute minutes min mins | hour hours hr hrs h | day days | week weeks | month
    months | year years yr yrs; temperature: celsius c | fahrenheit f; length: meter m; mass: gram g; volume: liter
    l; share: percent % pct"""
)
_NEGATORS = _by_language(
    """en: not never without cannot none nobody nothing neither no dont doesnt didnt cant wont isnt arent couldnt; de:
    nicht kein keine keinen keiner keines keinem ohne nie niemals; fr: pas sans jamais aucun aucune; es: no nunca
    sin jamás ningún ninguna; it: non senza mai nessun nessuna; pt: não nunca sem nenhum nenhuma; nl: niet geen
    zonder nooit; pl: nie bez nigdy; sv: inte utan aldrig ej ikke uten uden; ru: не нет без никогда"""
)
# In English these deny the word that follows; the others, and those of other languages, exclude something.
_DENIERS = _words("not never cannot dont doesnt didnt cant wont isnt arent couldnt")
# These carry a negation in themselves: beside a "not" in the other text they may say the same.
_HALF_NOT = _words(
    """avoid stop prevent unable impossible fail fails failed refuse lack lacks lacking free hate dislike minus quit
    missing wrong false illegal only rather instead besides apart skip disable remove but deny denying denies
    refusing except excluding"""
)
_SPOKEN = _by_language(
    """en: a as be or an that should would was were has have if not this the is are what how why who of to in and for
    do does can my you i with it; de: der die das ist und wie was ich ein eine nicht zu den von mit für auf wo warum
    kann im wird sich; fr: le la les est et comment quoi je un une des du pour dans que qui quel quelle où pourquoi
    sont avec sur; es: el la los las es y cómo qué un una de del para en que cuál dónde por son con mi puedo; it: il
    lo la gli è e come che un una di del della per in quale dove perché sono con mio posso; pt: o a os as é e como
    que um uma de do da para em qual onde porque são com meu posso; nl: de het een is en hoe wat ik van voor niet op
    waar waarom kan zijn met mijn; pl: jest i jak co w na z do się czy dlaczego gdzie są dla mój to; sv: är och hur
    vad jag en ett den det som på av för varför kan med min; ru: и в не на что как я с это для по где почему мой
    можно"""
)
_STOP = _STOP.union(*_SPOKEN.values())
_MEASURED = frozenset(word for word in (*_UNIT, *_AFTER_NUMBER) if len(word) > 1)  # for the guard of units
_TONGUES = _heads(
    """english englisch anglais inglés | german deutsch allemand alemán | french französisch français francés | spanish
    spanisch espagnol español castilian | italian italienisch italien italiano | portuguese portugiesisch | dutch
    niederländisch | polish polnisch | russian russisch russe | chinese mandarin chinesisch | japanese japanisch |
    korean | arabic arabisch | hindi | turkish türkisch | swedish | danish | norwegian | finnish | greek | hebrew |
    latin | ukrainian | czech | hungarian | vietnamese | thai | bengali | urdu | tamil | telugu | indonesian | malay"""
)
_FORMATS = _heads(
    """json | yaml yml | csv | xml | html | markdown | table tabular | bullet bullets bulleted | poem poetry | haiku |
    essay | sql | regex regexp | pdf | email | tweet | latex"""
)
_ARTICLES = _words("a an the")
_INTO = _words("in into to auf ins en al →")
_TAG = _words("it he she they we you i")
_NOT_ONLY = _words("only just matter so reason")
_ASKS = _words("why when where who")
_HOW = _words("many much long often old far big tall")
_UN = ("un", "in", "im", "ir", "il", "de", "dis", "non", "anti", "mis")
_CONNECTORS = {word: word for word in ("than", "over", "before", "after", "instead", "minus")}
_CONNECTORS |= dict.fromkeys(("to", "into", "from", "→", "->"), "to")
_PAIRING = _words("and or")
# In such company the order of two things means nothing.
_BALANCED = _words(
    """vs versus with between & compare compared comparing comparison difference different differ differences
    relationship related similar similarities distance relation connection equal both plus times combine"""
)
_BEFORE_VERB = _words("i you we they he she people one to can could should would not how")
_OR_NOT = _words("or if")
_ORDER = _words("don't dont not never")
_BEFORE_ORDER = _words("and but please do")

_TOKEN = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff]|(?:[A-Za-z]\.){2,}|[^\W\d_]+(?:'[^\W\d_]+)*(?:\+\+|#)?|\d+(?:[.,]\d+)*|°[CFcf]|->"
    r"|[%$€£¥₹→.?!:;\n]"
)
_BREAKS = frozenset(".?!:;\n")
_CODE = re.compile(r"```(.*?)```|`([^`\n]+)`", re.DOTALL)
_QUOTED = re.compile(r"""["“”„«]([^"“”„«»\n]{2,200})["“”»]|(?<!\w)'([^'\n]{2,100})'(?!\w)""")
_ADDRESS = re.compile(
    r"""https?://[^\s<>"'`)\]]+|\bwww\.[^\s<>"'`)\]]+|(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,64}\.[\w.-]{1,64}"""
    r"""|(?<![\w/.])(?:~|\.{1,2})?(?:/[\w.-]+){2,}|\b[A-Za-z]:\\\S+"""
    r"""|(?<!\S)-?(?:site|in|intitle|inurl|tag|author|filetype|lang|repo|org|user|label|status|type):[^\s"']+"""
)
_QUOTE_MARK = re.compile(r"""["'“”„«]""")
_ADDRESS_MARK = re.compile(r"[@/:\\]|www\.")
_COUNTRY = re.compile(r"\bUnited States(?: of America)?\b|\bU\.S\.(?:A\.)?|\bUSA?\b|\bUnited Kingdom\b|\bU\.K\.")
_PLAIN = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "\u00ad": None})
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d+)?")
_UNWANTED = re.compile(r"[\W_]+")
_ENDING = re.compile(
    r"(.{3,}?)(?:ations?|ators?|ating|ated|ates?|ings?|ers?|ors?|ed|es|'?s|ments?|ly|ness|al|ies|ied|y|e|ions?|ives?"
    r"|ity|ists?|isms?|ans?|ese|ical|ic|ance|ence|able|i?est|th)?"
)
# (last code point, script) of the blocks that matter, in order.
_BLOCKS = (
    *((0x24F, "latin"), (0x36F, ""), (0x3FF, "greek"), (0x52F, "cyrillic"), (0x58F, "armenian"), (0x5FF, "hebrew")),
    *((0x77F, "arabic"), (0x8FF, ""), (0xDFF, "indic"), (0xEFF, "thai"), (0x10FF, "georgian"), (0x11FF, "hangul")),
    *((0x1DFF, ""), (0x1EFF, "latin"), (0x1FFF, "greek"), (0x303F, ""), (0x30FF, "kana"), (0x312F, "")),
    *(
        (0x9FFF, "han"),
        (0xABFF, ""),
        (0xD7AF, "hangul"),
        (0xFB1C, ""),
        (0xFB4F, "hebrew"),
        (0xFEFF, "arabic"),
        (0x10FFFF, ""),
    ),
)
_BLOCK_ENDS = [end for end, _ in _BLOCKS]


# --- features -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Features:
    """What the guards know of one text; words are in lower case unless said otherwise."""

    text: str  # as it is, blanks collapsed
    squashed: str  # letters and digits only
    words: tuple[str, ...]  # without articles
    content: frozenset[str]  # canonical forms of the words that say what the text is about
    numbers: frozenset[str]
    perhaps_numbers: frozenset[str]  # "first", "March": may stand for a number, need not
    dates: frozenset[str]
    units: Mapping[str, set[str]]  # by dimension
    literals: frozenset[tuple[str, bool]]  # quotes, code, addresses; True if it must be equal to the letter
    negations: tuple[str, ...]  # stems of what is denied; "" for what is excluded
    script: str
    language: str  # "" if not sure
    targets: frozenset[str]  # languages to answer in
    poles: Mapping[int, set[int]]  # by axis of `_OPPOSITE`
    routes: frozenset[tuple[str, str, str]]  # connector, what stands before it, what stands after it
    names: frozenset[str]  # canonical
    asks: frozenset[str]
    formats: frozenset[str]
    passages: frozenset[int]  # hashes of all runs of `_PASSAGE` words


@lru_cache(maxsize=8192)
def features(text: str) -> Features:
    """All that the guards look at in one text."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_PLAIN)
    if "U" in text:
        text = _COUNTRY.sub(lambda match: "UK" if "K" in match[0] else "USA", text)
    tokens = _TOKEN.findall(text)
    spoken = [token for token in tokens if token[0] not in _BREAKS]
    lows = [token.lower() for token in spoken]
    words = tuple(low.replace(".", "") if low[0].isalpha() else low for low in lows if low not in _ARTICLES)
    language = _language(lows)
    numbers, perhaps = _numbers(spoken, lows)
    return Features(
        text=" ".join(text.split()),
        squashed=_squash(text),
        words=words,
        content=frozenset(_content(words)),
        numbers=numbers,
        perhaps_numbers=perhaps,
        dates=frozenset(_DATES[low] for low in lows if low in _DATES),
        units=_units(lows),
        literals=frozenset(_literals(text)),
        negations=tuple(_negations(lows, language)),
        script=_script(text),
        language=language,
        targets=frozenset(_TONGUES[low] for before, low in pairwise(lows) if low in _TONGUES and before in _INTO),
        poles=_poles(lows),
        routes=frozenset(_routes(words)),
        # German capitalises every noun.
        names=frozenset(_names(tokens)) if language != "de" else frozenset(),
        asks=frozenset(_asks(lows)),
        formats=frozenset(_FORMATS[low] for low in lows if low in _FORMATS),
        passages=frozenset(hash(words[i : i + _PASSAGE]) for i in range(len(words) - _PASSAGE + 1)),
    )


def _squash(text: str) -> str:
    return _UNWANTED.sub("", text.casefold())


def _weighty(word: str) -> bool:
    return word not in _STOP and word not in _FRAME and word not in _MEASURED and word[0].isalpha()


def _content(words: Sequence[str]) -> list[str]:
    return [_canonical(word) for word in words if _weighty(word)]


@lru_cache(maxsize=16384)
def _canonical(word: str) -> str:
    if not word.isascii():
        word = "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c)) or word
    stem = _stem(word)
    return _SAME_STEM.get(stem, stem)


def _stem(word: str) -> str:
    if not 3 < len(word) < 40:
        return word[:-1] if len(word) == 3 and word[-1] == "s" and word[1] not in "aiosu" else word
    match = _ENDING.fullmatch(word)
    stem = (match[1] if match else word).replace("z", "s")  # organize, organise
    return stem[:-1] if len(stem) > 3 and stem[-1] == stem[-2] else stem


_SAME_STEM = {_stem(word): _stem(head) for word, head in _SAME.items()}
_MEASURES = frozenset(map(_canonical, _HOW))


def _numbers(tokens: Sequence[str], lows: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
    sure: set[str] = set()
    perhaps: set[str] = set()
    for i, low in enumerate(lows):
        scale = _SCALE.get(lows[i + 1], 0) if i + 1 < len(lows) else 0
        if low[0].isdecimal():
            parts = [low.replace(",", "")] if _THOUSANDS.fullmatch(low) else low.split(",")
            sure.update(_value(part, scale) for part in parts)
        elif low in _NUMBER:
            (sure if low in _CARDINAL else perhaps).add(_value(_NUMBER[low], scale))
        elif tokens[i] in _ROMAN:
            sure.add(_ROMAN[tokens[i]])
        elif low in _MONTH:
            perhaps.add(_MONTH[low])
        elif low in _SCALE or (tokens[i] == "I" and i > 1 and tokens[i - 1][0].isupper()):
            perhaps.add(_value("1", _SCALE.get(low, 0)))  # a billion; World War I
    return frozenset(sure), frozenset(perhaps)


def _value(number: str, scale: int) -> str:
    """One spelling: 1k is 1000, 05 is 5, 9.0 is 9; but 3.10 is a version and not 3.1."""
    whole, _, rest = number.partition(".")
    if len(number) > 15 or "." in rest:
        return number
    if scale:
        return str(int(whole + rest[:scale].ljust(scale, "0")))
    return f"{int(whole)}.{rest}" if rest.strip("0") else str(int(whole))


def _units(lows: Sequence[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for i, low in enumerate(lows):
        unit = _UNIT.get(low)
        before = lows[i - 1] if i else ""
        if low in _AFTER_NUMBER and (before[:1].isdecimal() or before in _NUMBER):
            unit = _AFTER_NUMBER[low]
        elif before == "per":
            unit = _UNIT.get("/" + low)
        if unit:
            found.setdefault(unit[0], set()).add(unit[1])
    return found


def _literals(text: str) -> Iterator[tuple[str, bool]]:
    if "`" in text:
        yield from ((" ".join((match[1] or match[2] or "").split()), True) for match in _CODE.finditer(text))
    if _QUOTE_MARK.search(text):
        yield from ((_squash(match[1] or match[2]), False) for match in _QUOTED.finditer(text))
    if _ADDRESS_MARK.search(text):
        yield from ((match[0].rstrip(".,;:!?)/"), True) for match in _ADDRESS.finditer(text))


def _negations(lows: Sequence[str], language: str) -> Iterator[str]:
    """The stem of what is denied, or "" for what is excluded."""
    known = _NEGATORS.get(language, _NEGATORS["en"])
    for i, low in enumerate(lows):
        if (low in known or low.endswith("n't")) and not _idle(lows, i):
            denied = next((word for word in lows[i + 1 : i + 5] if word not in _STOP), "")
            order = low in _ORDER and (i == 0 or lows[i - 1] in _BEFORE_ORDER)
            yield _canonical(denied) if not order and (low in _DENIERS or low.endswith("n't")) else ""


def _idle(lows: Sequence[str], i: int) -> bool:
    """Whether this "not" denies nothing: why or why not, not only, isn't it, no. 5."""
    before = lows[i - 1] if i else ""
    after = lows[i + 1] if i + 1 < len(lows) else ""
    if lows[i].endswith("n't") and ((i == 0 and lows[i] != "don't") or (after in _TAG and i + 2 == len(lows))):
        return True
    if before == "why" and (not after or lows[i - 2 : i - 1] == ["or"]):
        return True
    return before in _OR_NOT or after in _NOT_ONLY or (lows[i] == "no" and after[:1].isdecimal())


def _script(text: str) -> str:
    if text.isascii():
        return "latin" if any(map(str.isalpha, text)) else ""
    counts = Counter(_BLOCKS[bisect_left(_BLOCK_ENDS, ord(letter))][1] for letter in text if letter.isalpha())
    del counts[""]
    # Japanese mixes both.
    return "kana" if counts["kana"] else max(sorted(counts), key=counts.__getitem__, default="")


def _language(lows: Sequence[str]) -> str:
    said = set(lows)
    (others, _), (hits, first) = sorted((len(said & words), code) for code, words in _SPOKEN.items())[-2:]
    return first if hits >= max(2, 2 * others) else ""


def _poles(lows: Sequence[str]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for low in lows:
        for axis, pole in _OPPOSITE.get(low, ()):
            found.setdefault(axis, set()).add(pole)
    return found


def _routes(words: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for i, word in enumerate(words):
        if word in _CONNECTORS:
            # "Go" is a name here, so words that frame a request are not left out.
            near = (words[max(0, i - 2) : i], words[i + 1 : i + 3])
            left, right = ([_canonical(w) for w in part if w not in _STOP] for part in near)
            if word == "from":
                left, right = right, left
            yield from ((_CONNECTORS[word], x, y) for x in left for y in right if x != y)


def _names(tokens: Sequence[str]) -> Iterator[str]:
    """Capitalised words inside a sentence, unless the whole text is set in capitals."""
    long = [token[0].isupper() for token in tokens if len(token) > 3]
    if len(long) > 3 and sum(long) > 0.7 * len(long):
        return
    for before, token in zip(("\n", *tokens), tokens, strict=False):
        acronym = len(token) > 1 and token.isupper()
        if acronym or (token[0].isupper() and before[0] not in _BREAKS):
            low = token.lower().replace(".", "")
            if _weighty(low) and low not in _MONTH and low not in _DATES:
                yield _canonical(low)


def _asks(lows: Sequence[str]) -> Iterator[str]:
    for low, after in zip(lows, (*lows[1:], ""), strict=False):
        if low in _ASKS:
            yield low
        elif low == "how" and after in _HOW:
            yield "how " + after


# --- guards: each is symmetric, and says True to forbid ---------------------------------------------------------


def _apart(one: frozenset[str] | set[str], two: frozenset[str] | set[str]) -> bool:
    return not (one <= two or two <= one)


def _number(a: Features, b: Features) -> bool:
    if not (a.numbers <= b.numbers | b.perhaps_numbers and b.numbers <= a.numbers | a.perhaps_numbers):
        return True
    return _apart(a.dates, b.dates)


def _unit(a: Features, b: Features) -> bool:
    return any(_apart(units, b.units[dimension]) for dimension, units in a.units.items() if dimension in b.units)


def _quote(a: Features, b: Features) -> bool:
    if not (a.literals or b.literals):
        return False
    lone_a, lone_b = _lone_literals(a, b), _lone_literals(b, a)
    # One text may quote what the other says without quotes, or in other words; two quotations may not differ.
    return True in lone_a or True in lone_b or bool(lone_a and lone_b)


def _lone_literals(a: Features, b: Features) -> set[bool]:
    return {exact for literal, exact in a.literals if literal not in (b.text if exact else b.squashed)}


def _other_language(a: Features, b: Features) -> bool:
    if (a.script and b.script and a.script != b.script) or (a.language and b.language and a.language != b.language):
        return True
    if a.targets == b.targets:
        return False
    return bool(a.targets and b.targets) or any(word.startswith("translat") for word in (*a.words, *b.words))


def _negation(a: Features, b: Features) -> bool:
    if (len(a.negations) - len(b.negations)) % 2 == 0:
        return False
    # "is not possible" and "is impossible" agree.
    if not _HALF_NOT.isdisjoint(set(a.words).symmetric_difference(b.words)) or _prefixed(a, b):
        return False
    # What only one text speaks of, it may well deny: "not" counts if both speak of it.
    spoken = {_canonical(word) for word in a.words} & {_canonical(word) for word in b.words}
    denied = Counter(a.negations), Counter(b.negations)
    return any(not stem or stem in spoken for stem in (denied[0] - denied[1]) + (denied[1] - denied[0]))


def _direction(a: Features, b: Features) -> bool:
    opposed = any(poles.isdisjoint(b.poles[axis]) for axis, poles in a.poles.items() if axis in b.poles)
    turned = {c for c, x, y in a.routes - b.routes if (c, y, x) in b.routes - a.routes}
    if "than" in turned:
        return not opposed  # "A is faster than B" is "B is slower than A"
    return (
        opposed
        or bool(turned)
        or (len(a.negations) == len(b.negations) and _prefixed(a, b))
        or _swapped(a.words, b.words)
    )


def _prefixed(a: Features, b: Features) -> bool:
    """Whether one says "install" where the other says "uninstall"."""
    x, y = set(a.words), set(b.words)
    return any(
        len(word) > len(prefix) + 3 and word.startswith(prefix) and word[len(prefix) :] in there
        for here, there in ((x - y, y - x), (y - x, x - y))
        for word in here
        if word.startswith(_UN)
        for prefix in _UN
    )


def _swapped(x: Sequence[str], y: Sequence[str]) -> bool:
    """Whether the two differ by two words or phrases that changed places around something not symmetric."""
    if len(x) != len(y) or x == y or not _BALANCED.isdisjoint(x) or Counter(x) != Counter(y):
        return False
    _, m, n = _middles(x, y)
    return any(
        m[:i] == n[-i:]
        and m[-j:] == n[:j]
        and m[i:-j] == n[j:-i]
        and not _PAIRING.issuperset(m[i:-j])
        and _content(m[:i])
        and _content(m[-j:])
        for i in range(1, _SLOT + 1)
        for j in range(1, min(_SLOT + 1, len(m) - i))
    )


def _middles(x: Sequence[str], y: Sequence[str]) -> tuple[int, Sequence[str], Sequence[str]]:
    """(length of the common beginning, what is left of x, what is left of y) without common beginning and end."""
    shorter = min(len(x), len(y))
    start = next((i for i in range(shorter) if x[i] != y[i]), shorter)
    end = next((i for i in range(shorter - start) if x[-1 - i] != y[-1 - i]), shorter - start)
    return start, x[start : len(x) - end], y[start : len(y) - end]


def _akin(x: str, y: str) -> bool:
    """Whether two stems are one word: inflected, derived or misspelt."""
    if x[0] != y[0]:
        return False
    if len(x) > len(y):
        x, y = y, x
    start = next((i for i in range(len(x)) if x[i] != y[i]), len(x))
    if start == len(x) >= 4 or (start >= 5 and start >= 0.7 * len(y)) or x == y:
        return True
    u, v = x[start:], y[start:]
    return len(x) >= 5 and (u[1:] == v[1:] or u == v[1:] or (u[:2] == v[1::-1] and u[2:] == v[2:]))


def _missing(stems: Sequence[str] | frozenset[str], other: Features) -> list[str]:
    """Which of the stems the other text has in no form."""
    return [
        stem
        for stem in stems
        if stem not in other.content
        and not (len(stem) > 3 and stem in other.squashed)
        and not any(_akin(stem, word) for word in other.content)
    ]


def _name(a: Features, b: Features) -> bool:
    if a.names and b.names and _unmet(a, b) and _unmet(b, a):
        return True
    return a.script not in ("han", "kana") and _in_slot(a, b)


def _unmet(a: Features, b: Features) -> bool:
    initials = "".join(word[0] for word in b.words)
    return any(not (len(name) < 6 and name in initials) for name in _missing(a.names, b))


def _in_slot(a: Features, b: Features) -> bool:
    """Whether one word, or a short ending, stands in place of another in the same sentence."""
    start, m, n = _middles(a.words, b.words)
    most = max(len(m), len(n))
    if not m or not n or most == max(len(a.words), len(b.words)):
        return False
    if most > 1 and (most > 2 or a.words[-1] == b.words[-1]):
        return False
    # After "I", "to" and the like comes a verb, and verbs have too many synonyms.
    if start and a.words[start - 1] in _BEFORE_VERB:
        return False
    u, v = _content(m), _content(n)
    if not u or not v or "".join(w[0] for w in m) in n or "".join(w[0] for w in n) in m:
        return False
    return len(_missing(u, b)) == len(u) and len(_missing(v, a)) == len(v)


def _scope(a: Features, b: Features) -> bool:
    if _apart(a.formats, b.formats):
        return True
    if not a.asks or not b.asks or not a.asks.isdisjoint(b.asks):
        return False
    return _MEASURES.issuperset(_missing(a.content, b)) and _MEASURES.issuperset(_missing(b.content, a))


def _passage(a: Features, b: Features) -> bool:
    shared = a.passages & b.passages
    if not shared:
        return False
    x, y = _rest(a, shared), _rest(b, shared)
    return any(not any(_akin(v, w) for w in there) for here, there in ((x - y, y), (y - x, x)) for v in here)


def _rest(of: Features, shared: frozenset[int]) -> set[str]:
    """What the text says outside the shared passage. Here "summarise" counts: the passage is the same."""
    starts = [i for i in range(len(of.words) - _PASSAGE + 1) if hash(of.words[i : i + _PASSAGE]) in shared]
    covered = {i + k for i in starts for k in range(_PASSAGE)}
    left = {word for i, word in enumerate(of.words) if i not in covered}
    return {_canonical(word) for word in left - _STOP - _MEASURED}


GUARDS: Mapping[str, Callable[[Features, Features], bool]] = MappingProxyType(
    {
        "number": _number,
        "unit": _unit,
        "quote": _quote,
        "language": _other_language,
        "negation": _negation,
        "direction": _direction,
        "name": _name,
        "scope": _scope,
        "passage": _passage,
    }
)
"""Every guard by name, in the order in which `veto` asks them; True forbids."""


def veto(asked: str, cached: str) -> str | None:
    """Which guard forbids to answer one text with what was answered to the other.

    Symmetric in its arguments, and never raises. Texts over `MAX_CHARS` characters are not looked at.

    Args:
        asked: The text asked now.
        cached: The text whose answer is in the cache.

    Returns:
        The name of the first guard in `GUARDS` that forbids it, or None if none does.

    Example:
        >>> veto("Top 5 films of 2023?", "Top 10 films of 2023?"), veto("two adults", "2 adults")
        ('number', None)
    """
    if asked == cached or max(len(asked), len(cached)) > MAX_CHARS:
        return None
    a, b = features(asked), features(cached)
    return next((name for name, forbids in GUARDS.items() if forbids(a, b)), None)
