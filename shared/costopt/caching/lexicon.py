"""The words and patterns that the guards know: closed lists, grouped by what they mean to a question."""

from __future__ import annotations

import re

__all__ = [
    "ADDRESS",
    "ADDRESS_MARK",
    "AFTER_NUMBER",
    "ARTICLES",
    "ASKS",
    "BALANCED",
    "BEFORE_ORDER",
    "BEFORE_VERB",
    "BLOCKS",
    "BLOCK_ENDS",
    "BREAKS",
    "CARDINAL",
    "CODE",
    "CONNECTORS",
    "COUNTRY",
    "DATES",
    "DENIERS",
    "ENDING",
    "FORMATS",
    "FRAME",
    "HALF_NOT",
    "HOW",
    "INTO",
    "MEASURED",
    "MONTH",
    "MONTHS",
    "NEGATORS",
    "NOT_ONLY",
    "NUMBER",
    "OPPOSITE",
    "ORDER",
    "OR_NOT",
    "PAIRING",
    "PLAIN",
    "QUOTED",
    "QUOTE_MARK",
    "ROMAN",
    "SAME",
    "SCALE",
    "SPOKEN",
    "STOP",
    "STOPPERS",
    "TAG",
    "THOUSANDS",
    "TOKEN",
    "TONGUES",
    "UN",
    "UNIT",
    "UNWANTED",
]


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


# Function words, which no question is about.
STOP = _words(
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
FRAME = _words(
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
SAME = _heads(
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
OPPOSITE = _axes(
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
    larger|smallest smaller tiny;highest high|lowest low;open opening opened unsealed|close
    closing closed sealed unopened;read reading reads|write writing writes;parse parsing|format formatting;
    pack|unpack;load loading|save saving;
    old older elderly|young
    younger;best|worst;better|worse;positive|negative;hot hottest|cold coldest;male man men boy boys husband|female
    woman women girl girls wife;mother mom|father dad;morning|evening|night;next upcoming|previous past
    last;strongest stronger|weakest weaker;easiest easier|hardest harder;safe safest|dangerous unsafe;add
    adding|remove removing subtract;client|server;local|remote;ascending|descending;encourage|discourage;
    credit|debit;arrival arrivals|departure departures;sum|product;derivative|integral;top|bottom;left|right;white|
    black|red|blue|green|yellow;summer|winter|spring|autumn;vertical|horizontal;synchronous sync|asynchronous async;
    present|absent;accept|reject decline;allow|forbid prohibit block;lock|unlock;single|married;healthy|unhealthy"""
)
NUMBER = _ordinals(
    """zero | one first once single | two twice double pair couple second dual | three third triple | four fourth |
    five fifth | six sixth | seven seventh | eight eighth | nine ninth | ten tenth | eleven eleventh | twelve
    twelfth dozen"""
)
CARDINAL = _words("two three four five six seven eight nine ten eleven twelve")
ROMAN = dict(zip("II III IV VI VII VIII IX XI XII".split(), "2 3 4 6 7 8 9 11 12".split(), strict=True))
SCALE = {"k": 3, "thousand": 3, "lakh": 5, "lakhs": 5, "million": 6, "mn": 6, "crore": 7, "crores": 7}
SCALE |= {"bn": 9, "billion": 9, "trillion": 12}
MONTHS = """january jan | february feb | march mar | april apr | may | june jun | july jul | august aug |
    september sep sept | october oct | november nov | december dec"""
MONTH = _ordinals("|" + MONTHS)
DATES = _heads(
    """monday mondays | tuesday tuesdays | wednesday wednesdays | thursday thursdays | friday fridays |
    saturday saturdays | sunday sundays | yesterday | tomorrow | today tonight now current |"""
    + MONTHS
)
for _word in ("march", "may", "mar"):  # verbs as often as months
    del DATES[_word]
UNIT = _units_by_word(
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
AFTER_NUMBER = _units_by_word(
    """time: millisecond milliseconds ms | microsecond microseconds us µs |
    nanosecond nanoseconds ns |
    second seconds sec secs s | minute minutes min mins | hour hours hr hrs h | day days | week weeks | month
    months | year years yr yrs; temperature: celsius c | fahrenheit f; length: meter m; mass: gram g | stone st;
    paper: gsm; volume: liter
    l; share: percent % pct"""
)
NEGATORS = _by_language(
    """en: not never without cannot none nobody nothing neither no non dont doesnt didnt cant wont isnt arent couldnt;
    de:
    nicht kein keine keinen keiner keines keinem ohne nie niemals; fr: pas sans jamais aucun aucune; es: no nunca
    sin jamás ningún ninguna; it: non senza mai nessun nessuna; pt: não nunca sem nenhum nenhuma; nl: niet geen
    zonder nooit; pl: nie bez nigdy; sv: inte utan aldrig ej ikke uten uden; ru: не нет без никогда"""
)
# In English these deny the word that follows; the others, and those of other languages, exclude something.
DENIERS = _words("not never non cannot dont doesnt didnt cant wont isnt arent couldnt")
# These carry a negation in themselves: beside a "not" in the other text they may say the same.
HALF_NOT = _words(
    """avoid stop prevent unable impossible fail fails failed refuse lack lacks lacking free hate dislike minus quit
    missing wrong false illegal only rather instead besides apart skip disable remove deny denying denies
    refusing except excluding"""
)
# What follows these shall not be, or be no more.
STOPPERS = _words("stop avoid prevent quit")
SPOKEN = _by_language(
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
STOP = STOP.union(*SPOKEN.values())
MEASURED = frozenset(word for word in (*UNIT, *AFTER_NUMBER) if len(word) > 1)  # for the guard of units
TONGUES = _heads(
    """english englisch anglais inglés | german deutsch allemand alemán | french französisch français francés | spanish
    spanisch espagnol español castilian | italian italienisch italien italiano | portuguese portugiesisch | dutch
    niederländisch | polish polnisch | russian russisch russe | chinese mandarin chinesisch | japanese japanisch |
    korean | arabic arabisch | hindi | turkish türkisch | swedish | danish | norwegian | finnish | greek | hebrew |
    latin | ukrainian | czech | hungarian | vietnamese | thai | bengali | urdu | tamil | telugu | indonesian | malay"""
)
FORMATS = _heads(
    """json | yaml yml | csv | xml | html | markdown | table tabular | bullet bullets bulleted | poem poetry | haiku |
    essay | sql | regex regexp | pdf | email | tweet | latex"""
)
ARTICLES = _words("a an the")
INTO = _words("in into to auf ins en al →")
TAG = _words("it he she they we you i")
NOT_ONLY = _words("only just matter so reason")
ASKS = _words("why when where who")
HOW = _words("many much long often old far big tall")
UN = ("un", "in", "im", "ir", "il", "de", "dis", "non", "anti", "mis")
CONNECTORS = {word: word for word in ("than", "over", "before", "after", "instead", "minus")}
CONNECTORS |= dict.fromkeys(("to", "into", "from", "→", "->"), "to")
PAIRING = _words("and or")
# In such company the order of two things means nothing.
BALANCED = _words(
    """vs versus with between & compare compared comparing comparison difference different differ differences
    relationship related similar similarities distance relation connection equal both plus times combine"""
)
BEFORE_VERB = _words("i you we they he she people one to can could should would not how")
OR_NOT = _words("or if")
ORDER = _words("don't dont not never")
BEFORE_ORDER = _words("and but please do")

TOKEN = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff]|(?:[A-Za-z]\.){2,}|[^\W\d_]+(?:'[^\W\d_]+)*(?:\+\+|#)?|\d+(?:[.,]\d+)*|°[CFcf]|->"
    r"|[%$€£¥₹→.?!:;\n]"
)
BREAKS = frozenset(".?!:;\n")
CODE = re.compile(r"```(.*?)```|`([^`\n]+)`", re.DOTALL)
QUOTED = re.compile(r"""["“”„«]([^"“”„«»\n]{2,200})["“”»]|(?<!\w)'([^'\n]{2,100})'(?!\w)""")
ADDRESS = re.compile(
    r"""https?://[^\s<>"'`)\]]+|\bwww\.[^\s<>"'`)\]]+|(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,64}\.[\w.-]{1,64}"""
    r"""|(?<![\w/.])(?:~|\.{1,2})?(?:/[\w.-]+){2,}|\b[A-Za-z]:\\\S+"""
    r"""|(?<!\S)-?(?:site|in|intitle|inurl|tag|author|filetype|lang|repo|org|user|label|status|type):[^\s"']+"""
)
QUOTE_MARK = re.compile(r"""["'“”„«]""")
ADDRESS_MARK = re.compile(r"[@/:\\]|www\.")
COUNTRY = re.compile(r"\bUnited States(?: of America)?\b|\bU\.S\.(?:A\.)?|\bUSA?\b|\bUnited Kingdom\b|\bU\.K\.")
PLAIN = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "\u00ad": None})
THOUSANDS = re.compile(r"\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d+)?")
UNWANTED = re.compile(r"[\W_]+")
ENDING = re.compile(
    r"(.{3,}?)(?:ations?|ators?|ating|ated|ates?|ings?|ers?|ors?|ed|es|'?s|ments?|ly|ness|al|ies|ied|y|e|ions?|ives?"
    r"|ity|ists?|isms?|ans?|ese|ical|ic|ance|ence|able|i?est|th)?"
)
# (last code point, script) of the blocks that matter, in order.
BLOCKS = (
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
BLOCK_ENDS = [end for end, _ in BLOCKS]
