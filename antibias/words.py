"""Words, and the classes of words that biased wording is made of."""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Sequence

_TOKEN = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+|[$%€£]")

NUMBER = "#"
BUCKETS = 1 << 15

CLASSES: dict[str, str] = {
    "group": (
        "accent accountant accountants actor actors adult adults africa african america "
        "american americans arab arabs artist artists asia asian asians atheist atheists "
        "athlete athletes aunt autist autistic banker bankers bisexual black blind blonde "
        "blondes boomer boomers bootcamp boy boys brazilian british brother brothers buddhist "
        "career-changer catholic catholics child children chinese christian christians city "
        "conservative cops country dad dads daughter daughters deaf disabled doctor doctors "
        "driver drivers dropout dropouts dutch elderly english ethnic europe farmer farmers "
        "fat father fathers female females feminine footballer footballers foreign foreigner "
        "foreigners french gay gays gender gentleman gentlemen german germans girl girls "
        "grandfather grandma grandmother grandpa greek greeks guys gypsies gypsy hindu "
        "hispanic homeless housewife housewives humanities husband husbands immigrant "
        "immigrants indian indians introvert introverted introverts irish italian italians "
        "japanese jew jewish jews junior kid kids korean koreans ladies lady latina latino "
        "lawyer lawyers lesbian lesbians liberal librarian librarians male males man "
        "masculine men mexican mexicans middle-class military millennial millennials "
        "minorities minority mom moms mother motherly mothers muslim muslims neurodivergent "
        "non-native nurse nurses old older parent parents pensioner pensioners pole poles "
        "policeman polish politician politicians poor pregnant programmer programmers "
        "protestant queer race redhead redheads refugee refugees religion religious retiree "
        "retirees rich roma rural russian russians scots scottish secretaries secretary self- "
        "taught senior short single sister sisters smoker smokers soldier soldiers son sons "
        "spaniard spaniards spanish student students swede swedes swiss tall teacher teachers "
        "teenager teenagers teens thin toddler trans transgender tribe turk turkish turks "
        "ugly uncle unemployed vegan vegans vegetarian veteran veterans village villagers "
        "waiter waiters wealthy welfare wheelchair white wife wives woman women working-class "
        "young younger"
    ),
    "person": (
        "applicant applicants candidate candidates designer developer developers employee "
        "employees engineer engineers he hire manager people person she someone their they "
        "types"
    ),
    "trait": (
        "aggressive always arrogant bad better blood boring born bossy can't cannot cautious "
        "cheap clever clueless cold commit concern corrupt couldn't criminal dangerous "
        "difficult dirty dishonest disloyal doesn't don't dull dumb emotional fit generally "
        "good greedy handle helpless hysterical inherently instinct irrational just lack "
        "lacks lazy less liars lie lies likely loud natural naturally nature never only over- "
        "qualified overqualified passive probably punctual rigid rude shy simple simply slow "
        "slower smart spoiled spoilt steal stingy strong struggle struggles stupid submissive "
        "tend tends too typically unreliable unusual useless usually violent weak won't "
        "worried worry wouldn't"
    ),
    "leader": (
        "admiral architect aristotle author authorities authority award award-winning bbc "
        "bezos bible bishop boss buffett cambridge captain cardiologist celebrity ceo "
        "chairman champion chef cio co-founder coach consultant creator critic cto darwin "
        "decorated dentist director dr economist einstein encyclopedia expert experts famous "
        "fda fellow followers forbes founder freud gartner gates general google guardian guru "
        "harvard influencer institute inventor jobs journal judge king laureate lead leading "
        "linus mathematician mckinsey microsoft minister mit monde musk nasa nature newton "
        "nobel nutritionist obama official officials olympic oprah oxford phd philosopher "
        "physicist pilot plato pope president priest prince princeton principal professor "
        "psychologist queen renowned report researcher researchers review scientist "
        "scientists specialist stanford star studies study surgeon times turing unesco "
        "university veteran vp who wikipedia wsj yale"
    ),
    "claims": (
        "according advises agree agrees approved approves argues behind believes called "
        "claims confirmed decided declared drinks eats endorsed endorses follows hated hates "
        "holds insists loves mandated praised predicted predicts prefers printed proved "
        "proves published put recommend recommended recommends said says shows signed states "
        "suggested suggests supporting swears takes taught teaches thinks told trusts tweeted "
        "uses warns wears wrote"
    ),
    "prescribes": (
        "adopt always apply ask avoid belongs best bring buy cancel choose every everywhere "
        "expect has have ignore implement migrate must needs never ought pay pick plan reason "
        "sell settle settled should skip start stop switch take use"
    ),
    "figure": "$ % £ €",
    "number": (
        "# billion dozen eight eleven fifty five forty four half hundred million nine one "
        "percent quarter seven six ten third thirty thousand three twelve twenty two"
    ),
    "amount": (
        "about above achieved admits anything around asked asking asks average bargain "
        "baseline below benchmark billed budget charge charges cheap competitor cost costs "
        "deploys donated earn earned earns enough estimate estimated fair finished first "
        "generous guess guessed has hit industry initial list near needed normal offer "
        "offered original originally paid pay price prices quoted raised reached reasonable "
        "record retired roughly runs salary sells ships sold spent standard starting steal "
        "sticker took under uses valued version wanted worth"
    ),
    "own": "it mine my our ours us we you your yours",
    "reader": "you you'd you'll you're you've your",
    "infer": (
        "because clearly consequently given hence if mean means must obviously proof prove "
        "proves settled settles show shows since so surely that's then therefore thus which"
    ),
    "certain": (
        "agree agreed all already always anyone believe believed best-in-class biased certain "
        "certainly clear clearly competent confirmed confirms contradicts definitely disagree "
        "dismissed disregard doubt doubts established establishes everybody everyone "
        "everywhere evidence evident evidently fact fit fits given ignore knew known knows "
        "liars naturally nobody obvious obviously plain plainly proof proven question real "
        "right sense serious since standard still superior sure surely suspected theory "
        "thought truth undeniable undeniably undoubtedly whoever wrong"
    ),
    "tag": (
        "acceptable agree agrees aren't confirm confirms correct couldn't don't follows isn't "
        "prove proves realistic right supports surely true valid won't wouldn't"
    ),
    "loss": (
        "affects afford against alarming appalling barely behind bleed bleeding bleeds "
        "botched broken burden burn burned burns burnt churn churned collapse collapsed "
        "complain complained cost crack cracked crash crashed crashes dead debt decline "
        "declined delay delayed denies deprive deprives destroy destroys devour devours die "
        "died dies disaster disgrace disrupt downtime drain drained drains dreadful dropped "
        "eats excluded fail failed failing fails failure failures flop forfeit frightening "
        "giving gut guts guzzle guzzles haemorrhaging horrific ill increased kill killed "
        "killing kills leak limitations lose loses losing loss lost managed meagre mere "
        "merely miserable miss missed misses only painful pathetic plague plagued plunge "
        "plunged punish punished punishes regressed reject rejected rejects risk risks risky "
        "rob robbed robs ruin ruined ruins sacrifice sacrifices sad setback shameful shed "
        "shocking shrink shrinks sick slip slips slower squander squandered steals stolen "
        "strangle strangles struggling stuck suffer suffers swallow swallowed tear tears "
        "terrible threw throw throwing tragic trouble unacceptable underperform "
        "underperforming unproductive waste wasted wasting worse worst wreck wrecks"
    ),
    "recent": (
        "after afternoon again ago announced announcement autumn breach breaking crash cve "
        "dead dying evening friday hack headline headlines hype just last lately latest "
        "launched layoffs milestone minute moment monday month morning moving new newest news "
        "night now obsolete outage overnight raised recent recently released row saturday "
        "season since spring streak summer sunday switched talking thursday today tonight "
        "trend trending tuesday viral wednesday week winter yesterday"
    ),
    "urgent": (
        "always any anymore asap ban banned behind buy cancel career changes clear clearly "
        "completely dangerous dead done doomed double drop everyone everything falling "
        "finished immediately invalidated left longer more must need never nothing now "
        "obsolete over overturns pivot proves quickly replaced sell too unreliable urgent "
        "useless worthless"
    ),
    "flaw": (
        "abandon abandoned abandons backfire behind bugs disrupt limitation limitations "
        "nothing reject risky setback slower unacceptable unproductive voted wasted wasting"
    ),
    "ask": "doesn't explain mean means since why",
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


@functools.lru_cache(maxsize=1 << 14)
def buckets_of(token: str) -> tuple[int, ...]:
    """The buckets of a word and of its classes."""
    return (bucket(token), *(bucket("@" + name) for name in _CLASSES_OF.get(token, ())))


@functools.lru_cache(maxsize=1 << 14)
def bucket(gram: str) -> int:
    """Where the weights of a word, a pair of words or a word class lie."""
    return zlib.crc32(gram.encode()) % BUCKETS
