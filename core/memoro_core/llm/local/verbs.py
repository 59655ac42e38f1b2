"""English verb forms: the third person present and the simple past of a lemma."""

from __future__ import annotations

from typing import Final

from memoro_core.llm.local.lexicon import word_set


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split(":") for pair in text.split())


_PRESENT: Final = {"be": "is", "have": "has", "do": "does", "go": "goes", "quiz": "quizzes"}

_IRREGULAR: Final = _pairs(
    """
    arise:arose awake:awoke be:was bear:bore beat:beat become:became begin:began bend:bent bet:bet bind:bound
    bite:bit bleed:bled blow:blew break:broke breed:bred bring:brought broadcast:broadcast build:built
    burst:burst buy:bought catch:caught choose:chose cling:clung come:came cost:cost creep:crept cut:cut
    deal:dealt dig:dug do:did draw:drew drink:drank drive:drove eat:ate fall:fell feed:fed feel:felt
    fight:fought find:found flee:fled fling:flung fly:flew forbid:forbade forecast:forecast foresee:foresaw
    forget:forgot forgive:forgave freeze:froze get:got give:gave go:went grind:ground grow:grew hang:hung
    have:had hear:heard hide:hid hit:hit hold:held hurt:hurt keep:kept kneel:knelt know:knew lay:laid lead:led
    leave:left lend:lent let:let lie:lay lose:lost make:made mean:meant meet:met mislead:misled mistake:mistook
    misunderstand:misunderstood outgrow:outgrew overcome:overcame pay:paid prove:proved put:put quit:quit
    read:read rebuild:rebuilt redo:redid rethink:rethought rewrite:rewrote ride:rode ring:rang rise:rose run:ran
    say:said see:saw seek:sought sell:sold send:sent set:set sew:sewed shake:shook shed:shed shine:shone
    shoot:shot show:showed shrink:shrank shut:shut sing:sang sink:sank sit:sat sleep:slept slide:slid
    speak:spoke spend:spent spin:spun split:split spread:spread spring:sprang stand:stood steal:stole
    stick:stuck sting:stung strike:struck strive:strove swear:swore sweep:swept swell:swelled swim:swam
    swing:swung take:took teach:taught tear:tore tell:told think:thought throw:threw undergo:underwent
    understand:understood undertake:undertook undo:undid upset:upset wake:woke wear:wore weave:wove weep:wept
    win:won wind:wound withdraw:withdrew write:wrote
    """
)

_DOUBLING: Final = word_set(
    """
    admit commit compel control equip expel forget incur occur omit patrol permit prefer propel rebel recur
    refer regret repel submit transfer transmit travel cancel label model quarrel signal
    """
)
"""Verbs of more than one syllable that double their last consonant (as British spelling does after l)."""

_VOWELS: Final = frozenset("aeiou")


def present(lemma: str) -> str:
    """The third person singular present: "work" → "works", "study" → "studies"."""
    if lemma in _PRESENT:
        return _PRESENT[lemma]
    if lemma.endswith(("s", "x", "z", "ch", "sh", "o")):
        return lemma + "es"
    if lemma.endswith("y") and lemma[-2:-1] not in _VOWELS:
        return lemma[:-1] + "ies"
    return lemma + "s"


def past(lemma: str) -> str:
    """The simple past: "buy" → "bought", "plan" → "planned", "study" → "studied"."""
    if lemma in _IRREGULAR:
        return _IRREGULAR[lemma]
    if lemma.endswith("e"):
        return lemma + "d"
    if lemma.endswith("y") and lemma[-2:-1] not in _VOWELS:
        return lemma[:-1] + "ied"
    if _doubles(lemma):
        return lemma + lemma[-1] + "ed"
    return lemma + "ed"


def _doubles(lemma: str) -> bool:
    if lemma in _DOUBLING:
        return True
    if len(lemma) < 3 or lemma[-1] in _VOWELS or lemma[-1] in "wxy":
        return False
    # One vowel before one last consonant, and no other vowel: one short syllable ("plan", "stop").
    return lemma[-2] in _VOWELS and not any(letter in _VOWELS for letter in lemma[:-2].replace("qu", "q"))
