"""Names for instances that were given none: two words that are easy to say. Pure."""

from __future__ import annotations

from random import Random

_FIRST = (
    "able amber brave brisk calm clever crisp eager fair fleet gentle glad keen kind lively lucky merry neat "
)
_FIRST += (
    "noble prime proud quick quiet rapid sharp smart solid steady sunny swift tidy vivid warm wise witty"
)
_SECOND = (
    "badger beaver bison crane dingo eagle falcon ferret finch gecko heron ibis jackal koala lemur llama "
)
_SECOND += (
    "lynx magpie marten moose newt otter owl panda puffin quail raven robin seal stork tapir tiger wombat"
)


def two_words(random: Random) -> str:
    return f"{random.choice(_FIRST.split())}-{random.choice(_SECOND.split())}"
