"""Every guard on near misses it must catch and on honest paraphrases that no guard may veto."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costopt.caching.guards import GUARDS, MAX_CHARS, features, veto

_POLICY = (
    "Employees may carry over up to five unused vacation days into the following calendar year, provided that "
    "their manager agrees in writing before the end of November and payroll is informed in time."
)
_LOG = "Traceback: the worker closed its connection while the scheduler was still waiting for the last heartbeat"

NEAR_MISSES = {
    "number": [
        ("Recommend 5 books on gardening", "Recommend 15 books on gardening"),
        ("How do I install Python 3.10 on Debian?", "How do I install Python 3.1 on Debian?"),
        ("Population of Norway in 2015", "Population of Norway in 2021"),
        ("A dinner menu for two guests", "A dinner menu for 8 guests"),
        ("Budget phone under $300", "Budget phone under $500"),
        ("What does exit code 137 mean?", "What does exit code 139 mean?"),
        ("Summarise chapter three of the novel", "Summarise chapter four of the novel"),
        ("Weather on Monday in Oslo", "Weather on Thursday in Oslo"),
        ("Events in Lisbon in October", "Events in Lisbon in December"),
        ("What is 1,000 plus one half?", "What is 10,000 plus one half?"),
        ("Causes of World War II", "Causes of World War I"),
        ("How to lose weight in 30 days", "How to lose weight"),
        ("Stock price of the company yesterday", "Stock price of the company today"),
        ("Explain photosynthesis in 3 sentences", "Explain photosynthesis"),
        ("Is $2.5 million a lot for a house?", "Is $2.5 billion a lot for a house?"),
    ],
    "unit": [
        ("Length of a marathon in km", "Length of a marathon in miles"),
        ("Set the oven to 200 °C", "Set the oven to 200 °F"),
        ("Is 512 MB enough memory?", "Is 512 GB enough memory?"),
        ("Price of gold in USD", "Price of gold in EUR"),
        ("How much is 100 dollars worth?", "How much is 100 yen worth?"),
        ("Cost of parking per day", "Cost of parking per month"),
        ("Fast for 16 hours", "Fast for 16 days"),
        ("Weight of a newborn panda in grams", "Weight of a newborn panda in pounds"),
        ("Write a daily report for the sales team", "Write a weekly report for the sales team"),
        ("Is 37 celsius a fever?", "Is 37 fahrenheit a fever?"),
        ("Convert the angle to radians", "Convert the angle to degrees"),
        ("A tank that holds 20 litres", "A tank that holds 20 gallons"),
        ("Give me €50 ideas for a gift", "Give me £50 ideas for a gift"),
    ],
    "quote": [
        ("Find pages on bees site:nature.com", "Find pages on bees site:science.org"),
        ("Summarise https://example.com/a", "Summarise https://example.com/b"),
        ("What does `git reset` do?", "What does `git rebase` do?"),
        ("Translate 'good morning' for me", "Translate 'good night' for me"),
        ('Who said "to be or not to be"?', 'Who said "I came, I saw, I conquered"?'),
        ("Write to anna@example.org about lunch", "Write to otto@example.org about lunch"),
        ("What belongs in /etc/hosts/allow?", "What belongs in /etc/hosts/deny?"),
        ("Fix ```x = 1 + ``` for me", "Fix ```y = 2 * ``` for me"),
        ("Open C:\\Users\\ann for me", "Open C:\\Users\\bob for me"),
        ("Rhymes for “orange”", "Rhymes for “silver”"),
        ("Explain the flag `-v` of the tool", "Explain the flag `-V` of the tool"),
        ("Open issues about login label:bug", "Open issues about login label:docs"),
        ("Read www.example.com for me", "Read www.example.net for me"),
        ("Summarise https://example.com/a", "Summarise the article"),
    ],
    "language": [
        ("Translate this into French", "Translate this into German"),
        ("Say thank you in Japanese", "Say thank you in Korean"),
        ("Translate the letter to Spanish", "Translate the letter"),
        ("What is the capital of France?", "Was ist die Hauptstadt von Frankreich?"),
        ("How do I cook rice in the oven?", "Comment est-ce que je cuis le riz dans le four?"),
        ("Where is the station?", "Где находится вокзал?"),
        ("Where is the library?", "図書館はどこですか"),
        ("What is love?", "ما هو الحب"),
        ("What is the weather like?", "天气怎么样"),
        ("Wie ist das Wetter und was ziehe ich an?", "Hoe is het weer en wat doe ik aan vandaag, niet te warm?"),
        ("Cómo es el tiempo en la ciudad", "Com'è il tempo nella città di Roma e come lo trovo"),
        ("Reply in Polish", "Reply in Russian"),
        ("Ποιος είναι ο πρόεδρος;", "Who is the president?"),
    ],
    "negation": [
        ("Foods that contain gluten", "Foods that do not contain gluten"),
        ("Can I travel with a visa?", "Can I travel without a visa?"),
        ("Why does my cat eat?", "Why doesn't my cat eat?"),
        ("Is the server reachable from outside?", "Is the server not reachable from outside?"),
        ("Countries that have a king", "Countries that have no king"),
        ("Which birds can fly?", "Which birds can't fly?"),
        ("Write a poem and mention the sea", "Write a poem and do not mention the sea"),
        ("People who have always lived here", "People who have never lived here"),
        ("A cake with eggs", "A cake without eggs"),
        ("Kann ich ohne Ticket mit der Bahn fahren?", "Kann ich mit einem Ticket mit der Bahn fahren?"),
        ("Comment faire un gâteau sans œufs dans le four", "Comment faire un gâteau aux œufs dans le four"),
        ("Por qué no funciona el coche con la llave", "Por qué funciona el coche con la llave"),
        ("Why are these plants growing?", "Why aren't these plants growing?"),
        ("Suggest a workout with weights", "Suggest a workout with no weights"),
    ],
    "direction": [
        ("How to enable dark mode", "How to disable dark mode"),
        ("Foods that increase blood pressure", "Foods that decrease blood pressure"),
        ("Flights from Rome to Madrid", "Flights from Madrid to Rome"),
        ("Convert JPEG to PNG", "Convert PNG to JPEG"),
        ("Is Rust faster than Go?", "Is Go faster than Rust?"),
        ("The latest release of the library", "The oldest release of the library"),
        ("Stretching before a run", "Stretching after a run"),
        ("Write a formal letter of thanks", "Write an informal letter of thanks"),
        ("The cheapest hotel at the lake", "The most expensive hotel at the lake"),
        ("How do I install the driver?", "How do I uninstall the driver?"),
        ("Do sharks eat dolphins?", "Do dolphins eat sharks?"),
        ("A short summary of the meeting", "A detailed summary of the meeting"),
        ("Migrate from Jenkins to Buildkite", "Migrate from Buildkite to Jenkins"),
        ("How do I encrypt a folder?", "How do I decrypt a folder?"),
        ("Does stress cause insomnia?", "Does insomnia cause stress?"),
        ("The highest mountain of the island", "The lowest mountain of the island"),
    ],
    "name": [
        ("What is the culture at Acme Logistics like?", "What is the culture at Borealis Logistics like?"),
        ("Best museums in Paris", "Best museums in London"),
        ("How do I sort a list in Python?", "How do I sort a list in Java?"),
        ("Who founded Netflix?", "Who founded Spotify?"),
        ("how to undo a commit in git", "how to undo a commit in mercurial"),
        ("population of canada", "population of brazil"),
        ("What is TCP used for in games?", "What is UDP used for in games?"),
        ("Side effects of ibuprofen in children", "Side effects of paracetamol in children"),
        ("Biography of Marie Curie", "Biography of Ada Lovelace"),
        ("weather in hamburg", "weather in munich"),
        ("Capital of Iran", "Capital of Iraq"),
        ("Visa rules for Austria", "Visa rules for Australia"),
        ("How do dolphins sleep?", "How do giraffes sleep?"),
        ("Best running shoes for flat feet", "Best hiking shoes for flat feet"),
        ("Is it worth moving to Paris for work?", "For work, is a move to London worth it?"),
    ],
    "scope": [
        ("Show the results as JSON", "Show the results as CSV"),
        ("When was the bridge built?", "Where was the bridge built?"),
        ("Who painted the ceiling?", "When was the ceiling painted?"),
        ("How many people work there?", "How long do people work there?"),
        ("How old is the tower?", "How tall is the tower?"),
        ("Put the figures in a table", "Put the figures in bullets"),
        ("Why did the empire fall?", "When did the empire fall?"),
        ("Write a haiku about snow", "Write an essay about snow"),
        ("Who bought the painting?", "Where was the painting bought?"),
        ("Return the config in YAML", "Return the config in XML"),
        ("How often should I water the cactus?", "How much should I water the cactus?"),
        ("Why do whales sing?", "Where do whales sing?"),
    ],
    "passage": [
        (f"{_POLICY}\n{one}", f"{_POLICY}\n{two}")
        for one, two in [
            ("Who has to agree?", "Which department is informed?"),
            ("Summarise this.", "List the deadlines."),
            ("Write a quiz about the rule.", "Write a reminder about the rule."),
            ("What happens to the rest?", "Is overtime covered?"),
            ("Shorten the text.", "Rate the style."),
            ("Find spelling errors.", "Find legal risks."),
            ("", "Rewrite it for the whole team."),
        ]
    ]
    + [
        (f"{one}\n\n{_LOG}", f"{two}\n\n{_LOG}")
        for one, two in [
            ("Explain the cause:", "Suggest a fix:"),
            ("Which component failed?", "Which retry policy helps?"),
            ("Write a bug report from this log.", "Write an apology from this log."),
            ("Is the network to blame?", "Is the memory to blame?"),
            ("Summarise:", "Anonymise:"),
            ("Classify the severity.", "Extract the timestamps."),
        ]
    ],
}

PARAPHRASES = {
    "number": [
        ("A room for two adults", "A room for 2 adults"),
        ("Give me the top 3 tourist sights", "Give me the three top tourist sights"),
        ("Is 1,000 followers a lot?", "Is 1000 followers a lot?"),
        ("What can I do with 1k followers?", "What can I do with 1,000 followers?"),
        ("Is $2 million enough to retire?", "Is 2,000,000 dollars enough to retire?"),
        ("Who won on 5 March 2019?", "Who won on 2019-03-05?"),
        ("Causes of World War II", "World War 2 causes"),
        ("Who was the first person on the moon?", "Who was the 1st person on the moon?"),
        ("Changes in iOS 9.0", "Changes in iOS 9"),
        ("What is the meaning of one?", "What does one mean?"),
        ("Music of the 1980s", "1980s music"),
    ],
    "unit": [
        ("How far is 10 km?", "How far is 10 kilometres?"),
        ("Is 30°C hot?", "Is 30 degrees celsius hot?"),
        ("How much is $20 today?", "How much is 20 dollars today?"),
        ("Daily cost of parking", "Cost of parking per day"),
        ("Convert 5 miles to km", "5 miles in kilometers"),
        ("Is 8 GB of RAM enough?", "Is 8 gigabytes of RAM enough?"),
        ("USD to EUR exchange rate", "Exchange rate USD EUR"),
        ("A pause of 5 min", "A pause of 5 minutes"),
        ("Yearly fee of the card", "Annual fee of the card"),
    ],
    "quote": [
        ("Define 'entropy' for me", "Define entropy for me"),
        ("What does `ls -la` do?", "What does ls -la do?"),
        ("bees site:nature.com", "site:nature.com bees"),
        ('What does "ubiquitous" mean?', "What is the meaning of ubiquitous?"),
        ("Please summarise https://example.com/a", "Summarise https://example.com/a."),
        ("Don't you think it's odd?", "Don’t you think it’s odd?"),
        ("Rhymes for “orange”", 'Rhymes for "orange"'),
        ("Tabs and/or spaces in code?", "Spaces and/or tabs in code?"),
        ("Email ann@example.org a greeting", "Send a greeting by email to ann@example.org"),
    ],
    "language": [
        ("Translate this into German", "Translate this to German, please"),
        ("How does one say hello in French?", "How do you say hello in French?"),
        ("Who was Élodie Dupré?", "Who was Elodie Dupré?"),
        ("Is naïve spelled with two dots?", "Is naïve spelled with 2 dots?"),
        ("What is jamais vu?", "What is meant by jamais vu?"),
        ("Wie ist das Wetter in Bonn?", "Wie wird das Wetter in Bonn?"),
        ("I 💙 tea, is it healthy?", "I love tea, is it healthy?"),
        ("What is the symbol Ω?", "What does the symbol Ω mean?"),
    ],
    "negation": [
        ("Why can't I log in?", "Why am I unable to log in?"),
        ("Is it not possible to change the name?", "Is it impossible to change the name?"),
        ("Is tea healthy? Why or why not?", "Is tea healthy?"),
        ("Isn't chess a sport?", "Is chess a sport?"),
        ("Why doesn't the printer work?", "Why is the printer not working?"),
        ("A cake without eggs", "An egg-free cake"),
        ("My phone won't charge", "My phone does not charge"),
        ("How do I not oversleep?", "How do I avoid to oversleep?"),
        ("Chess is a sport, isn't it?", "Chess is a sport?"),
        ("Who is not only rich but also kind?", "Who is rich and kind?"),
        ("Should I rent a flat or not?", "Should I rent a flat?"),
    ],
    "direction": [
        ("Differences between Rust and Go", "Differences between Go and Rust"),
        ("Coffee vs tea: which is healthier?", "Tea vs coffee: which is healthier?"),
        ("Is Rust faster than Go?", "Is Go slower than Rust?"),
        ("Flights from Rome to Madrid", "Flights to Madrid from Rome"),
        ("Compare cats and dogs as pets", "Compare dogs and cats as pets"),
        ("Convert JPEG to PNG", "JPEG to PNG conversion"),
        ("How do I turn on dark mode in the app?", "How can I turn on dark mode in the app?"),
        ("Pros and cons of nuclear power", "Cons and pros of nuclear power"),
        ("How to learn to swim", "How can I learn to swim?"),
    ],
    "name": [
        ("Capital of Canada", "What is the capital city of Canada?"),
        ("nearest gas station", "closest petrol station"),
        ("Population of the United States", "Population of the USA"),
        ("What is RAG?", "What is Retrieval Augmented Generation?"),
        ("How do I buy a car?", "How do I purchase a car?"),
        ("Is YouTube free for everyone?", "Is You Tube free for everyone?"),
        ("BEST MUSEUMS IN PARIS", "best museums in paris"),
        ("Who is the president of India?", "Who is the Indian president?"),
        ("How do I improve my English?", "How do I boost my English?"),
        ("Best beaches in Portugal", "What are Portugal's best beaches?"),
        ("What is the weather in Berlin?", "Berlin weather"),
        ("Who was Leonardo da Vinci?", "Who was Leonardo da Vincci?"),
        ("The best movie of the year", "The best film of the year"),
        ("How do I clean a leather sofa?", "How do I wash a leather sofa?"),
        ("What is AI?", "What is artificial intelligence?"),
    ],
    "scope": [
        ("Show the results as JSON", "Return the results in JSON"),
        ("When was the bridge built?", "In what year was the bridge built?"),
        ("Who wrote the play?", "Which author wrote the play?"),
        ("How do I boil eggs?", "What is the best way to boil eggs?"),
        ("Why is the sky blue?", "What is the reason the sky is blue?"),
        ("How many moons has Mars?", "Number of moons of Mars"),
        ("Where can I buy stamps?", "What are places to buy stamps?"),
        ("Put the figures in a table", "Make a table of the figures"),
    ],
    "passage": [
        (f"{_POLICY}\nSummarise this.", f"{_POLICY}\nPlease summarise this!"),
        (f"Summarise:\n{_POLICY}", f"Can you summarise this?\n\n{_POLICY}"),
        (f"{_POLICY}\nWho has to agree?", f"{_POLICY}\nWho must agree?"),
        (f"{_LOG}\nWhat failed?", f"What failed?\n{_LOG}"),
        (f"Explain this: {_LOG}", f"Explain {_LOG}"),
        (f"Explaining this please: {_LOG}", f"Explain this: {_LOG}"),
        (_POLICY, _POLICY.upper()),
        (_LOG, f"  {_LOG}."),
    ],
}


@pytest.mark.parametrize(("guard", "one", "two"), [(g, *pair) for g, pairs in NEAR_MISSES.items() for pair in pairs])
def test_near_miss_is_vetoed(guard, one, two):
    assert GUARDS[guard](features(one), features(two))
    assert GUARDS[guard](features(two), features(one))
    assert veto(one, two) in GUARDS


@pytest.mark.parametrize(("guard", "one", "two"), [(g, *pair) for g, pairs in PARAPHRASES.items() for pair in pairs])
def test_paraphrase_passes_every_guard(guard, one, two):
    assert veto(one, two) is None
    assert veto(two, one) is None
    assert not GUARDS[guard](features(one), features(two))


def test_every_guard_has_its_table():
    assert list(NEAR_MISSES) == list(PARAPHRASES) == list(GUARDS)
    assert all(len(pairs) >= 12 for pairs in NEAR_MISSES.values())
    assert all(len(pairs) >= 8 for pairs in PARAPHRASES.values())


def test_the_first_guard_names_the_veto():
    assert veto("Top 5 films", "Top 10 films") == "number"
    assert veto("Best museums in Paris", "Best museums in London") == "name"
    assert veto("Top 5 films in Paris", "Top 10 films in London") == "number"


def test_longer_texts_are_not_looked_at():
    def padded(number: str, length: int) -> str:
        return number + "x" * (length - len(number))

    assert veto("1", padded("2 ", MAX_CHARS)) == "number"
    assert veto("1", padded("2 ", MAX_CHARS + 1)) is None
    assert veto(padded("2 ", MAX_CHARS + 1), "1") is None


_PIECES = st.sampled_from(
    [
        *"not n't don't no 3 1,000 1,0 5k $ € km °C per day from to than A Paris paris US II May 'x' \" ` ```".split(),
        *"site:a /a/b/c a@b.c https://x.y un do undo enable disable the what why how many in German".split(),
        *[
            "ist",
            "das",
            "ß",
            "ſ",
            "İ",
            "ﬁ",
            "Σ",
            "ς",
            "②",
            "½",
            "٣",
            "漢",
            "か",
            "ไ",
            "\n",
            "\x00",
            "\ud800",
            "\u200f",
            "💥",
            ". ",
            "? ",
            "9" * 30,
        ],
        "what is the best way to do it when nobody is at home",
    ]
)
_TEXTS = st.one_of(
    st.text(max_size=60),
    st.text(st.characters(exclude_categories=[]), max_size=40),  # lone surrogates too
    st.lists(_PIECES, max_size=25).map(" ".join),
    st.lists(_PIECES, max_size=25).map("".join),
)


@given(_TEXTS, _TEXTS)
@settings(max_examples=400, deadline=None)
def test_symmetric_and_deterministic_on_any_text(one, two):
    first = veto(one, two)
    assert first is None or first in GUARDS
    assert veto(two, one) == first
    a, b = features(one), features(two)
    assert [guard(a, b) for guard in GUARDS.values()] == [guard(b, a) for guard in GUARDS.values()]
    features.cache_clear()
    assert veto(one, two) == first


@given(_TEXTS)
@settings(max_examples=300, deadline=None)
def test_no_guard_vetoes_a_text_beside_itself(text):
    assert veto(text, text) is None
    # `veto` stops early on equal texts; the guards themselves must agree.
    assert [name for name, forbids in GUARDS.items() if forbids(features(text), features(text))] == []


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "'",
        '"',
        "`",
        "```",
        "a-",
        "/a",
        "a@",
        "a'b",
        "1,",
        "1.",
        "I.S.",
        "9",
        "9 ",
        "a.",
        "http://",
        "-site:",
        "漢",
        "Zb ",
        "a b c d ",
    ],
)
def test_no_text_takes_long(unit):
    text = (unit * MAX_CHARS)[: MAX_CHARS - 2]
    start = time.perf_counter()
    veto(text, "x " + text)
    veto(text[:-9], text[::-1])
    assert time.perf_counter() - start < 1.0


def test_a_megabyte_is_no_burden():
    start = time.perf_counter()
    assert veto("1 " * 500_000, "2 " * 500_000) is None
    assert time.perf_counter() - start < 0.2


def test_features_are_remembered_and_bounded():
    features.cache_clear()
    for candidate in ("one apple", "a pear", "plums"):
        veto("which fruit is sweet?", candidate)
    assert features.cache_info().misses == 4
    assert features.cache_info().maxsize is not None
