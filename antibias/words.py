"""Words, and the classes of words that biased wording is made of."""

from __future__ import annotations

import re
from collections.abc import Sequence

_TOKEN = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+|[$%€£]")

NUMBER = "#"

CLASSES: dict[str, str] = {
    "group": "woman women man men girl girls boy boys male males female females old older"
    " elderly young younger senior junior boomer boomers millennial millennials"
    " grandmother grandfather disabled autistic neurodivergent blind deaf veteran"
    " veterans pregnant mother mothers father fathers mom moms dad dads immigrant"
    " immigrants foreign foreigner foreigners refugee refugees minority minorities"
    " black white asian asians african africa arab arabs hispanic latino latina indian"
    " indians chinese jew jews jewish muslim muslims christian christians hindu"
    " atheist atheists gay gays lesbian lesbians bisexual trans transgender queer"
    " self-taught bootcamp non-native introvert introverts introverted career-changer"
    " dropout dropouts poor working-class humanities artists athletes religious"
    " conservative liberal rural accent europe asia america religion military single"
    " parent parents",
    "person": "candidate candidates person people someone applicant applicants hire employee"
    " employees developer developers engineer engineers manager designer they he she"
    " their types",
    "trait": "probably naturally inherently typically generally usually tend tends lack lacks"
    " less unusual likely over-qualified overqualified concern worried worry cautious"
    " emotional lazy fit disloyal commit can't cannot won't wouldn't couldn't rigid"
    " aggressive slow slower bad good better weak difficult struggle handle unreliable"
    " struggles too only",
    "leader": "cto ceo cio vp founder co-founder director professor dr phd nobel laureate"
    " fellow principal expert experts guru lead architect scientist scientists"
    " researcher researchers harvard stanford mit google microsoft nasa gartner"
    " mckinsey forbes wsj nature economist linus musk bezos creator author inventor"
    " celebrity influencer authority study studies report review journal award turing"
    " followers consultant",
    "claims": "says said insists recommends claims believes thinks argues states declared"
    " endorses endorsed warns told swears wrote mandated published signed agree agrees"
    " shows proves proved confirmed according advises tweeted supporting predicts"
    " predicted",
    "prescribes": "should must implement apply adopt migrate switch settled reason everywhere"
    " always every never best choose",
    "figure": "$ % € £",
    "number": NUMBER,
    "amount": "spent earns earn paid pay charges charge quoted costs cost raised valued"
    " achieved took uses runs has ships deploys hit reached asking offered average"
    " benchmark baseline standard budget salary original initial first version price"
    " asks billed competitor industry estimate estimated",
    "own": "our ours we us",
    "certain": "obviously clearly undeniably undeniable proven fact everyone everybody nobody"
    " obvious knows certainly definitely clear known superior agree serious real"
    " competent since anyone still truth already always given undoubtedly standard"
    " best-in-class everywhere",
    "tag": "right isn't don't aren't wouldn't correct true valid agree agrees prove proves"
    " confirm confirms supports acceptable realistic follows",
    "loss": "fail fails failed failing failure failures waste wasted wasting lose loses"
    " losing lost loss behind merely dropped decline declined worse worst miss missed"
    " misses broken risk risks risky delay delayed disaster debt reject rejected"
    " rejects crash crashed crashes struggling underperforming underperform burden"
    " complain complained churn churned downtime limitations disrupt against"
    " unproductive setback afford unacceptable disgrace terrible trouble slower"
    " increased regressed affects only",
    "recent": "after just week month recently recent latest trending overnight yesterday"
    " announced announcement released launched raised breaking viral hype obsolete"
    " dying dead moving talking switched trend crash milestone breach hack outage cve"
    " layoffs today lately",
    "urgent": "immediately now asap must need urgent quickly falling behind career everyone"
    " dead obsolete too double pivot completely clear clearly invalidated left doomed"
    " changes finished drop",
    "flaw": "limitations limitation bugs abandon abandons abandoned voted unproductive wasted"
    " wasting behind setback disrupt risky backfire nothing reject"
    " slower unacceptable",
    "ask": "why since doesn't mean means explain",
}
"""A word may be in several classes. They are coarse: one alone says nothing."""

_CLASSES_OF: dict[str, tuple[str, ...]] = {}
for _name, _words in CLASSES.items():
    for _word in _words.split():
        _CLASSES_OF[_word] = (*_CLASSES_OF.get(_word, ()), _name)


def tokenize(text: str) -> list[str]:
    """Lower-case words, ``#`` for each run of digits, and the signs of money and per cent."""
    lowered = text.lower().replace("’", "'")
    return [NUMBER if token[0].isdigit() else token for token in _TOKEN.findall(lowered)]


def classes_of(tokens: Sequence[str]) -> list[str]:
    """The classes of the tokens, in their order."""
    found: list[str] = []
    for token in tokens:
        found += _CLASSES_OF.get(token, ())
    return found
