"""Shell completion: scripts for bash, zsh and fish, and the words they offer.

The scripts ask `podium __complete WORDS…`, whose last word is the one being typed. Names come from
the server; when it is away there are none, and nothing is printed to the user's prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from cli.arguments import GLOBALS, Flag, Verb, find, kind_of, members, parse
from cli.call import Call
from cli.verbs import GROUPS, VERBS

_FILES = "\x00files"
_FIXED = {
    "SHELL": ["bash", "zsh", "fish"],
    "FORMAT": ["table", "compact", "csv", "json", "yaml"],
    "DRIVER": ["btrfs", "ceph", "dir", "lvm", "zfs"],
    "DISTRIBUTION": ["debian"],
    "RELEASE": ["11", "12", "13"],
    "MODE": ["auto", "interactive", "non-interactive"],
    "METHOD": ["GET", "PUT", "POST", "PATCH", "DELETE"],
}
_PLACES = {
    "INSTANCE": "instances",
    "FILTER": "instances",
    "NETWORK": "networks",
    "POOL": "storage-pools",
    "PROFILE": "profiles",
    "PROFILES": "profiles",
    "PROJECT": "projects",
    "WARNING": "warnings",
    "FINGERPRINT": "certificates",
    "ALIAS": "images/aliases",
    "IMAGE": "images/aliases",
}

_BASH = """\
# podium completion; load it with: source <(podium completion bash)
_podium() {
    local IFS=$'\\n' cur=${COMP_WORDS[COMP_CWORD]} line
    COMPREPLY=()
    while read -r line; do
        if [ "$line" = ":files" ]; then compopt -o default; continue; fi
        case $line in */|*=) compopt -o nospace ;; esac
        COMPREPLY+=("$line")
    done < <(podium __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _podium podium
"""
_ZSH = """\
#compdef podium
# podium completion; load it with: source <(podium completion zsh)
_podium() {
    local -a found
    found=("${(@f)$(podium __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ ${found[(Ie):files]} -gt 0 ]]; then _files; found=(${found:#:files}); fi
    compadd -a -- found
}
compdef _podium podium
"""
_FISH = """\
# podium completion; load it with: podium completion fish | source
function __podium
    set -l words (commandline -opc) (commandline -ct)
    for line in (podium __complete $words[2..-1] 2>/dev/null)
        if test "$line" = ":files"
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete -c podium -f -a '(__podium)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def script(call: Call) -> None:
    shell = call.words[0]
    if shell not in _SCRIPTS:
        raise call.misuse(f"there is no completion for {shell!r}", f"shells are {', '.join(_SCRIPTS)}")
    print(_SCRIPTS[shell], end="")


def complete(words: Sequence[str]) -> int:
    """Print what may stand for the last of *words*."""
    try:
        for line in candidates(list(words), _names_from_server):
            print(":files" if line == _FILES else line)
    except Exception:
        return 1  # a traceback has no place in a prompt, whatever went wrong
    return 0


def candidates(words: list[str], names: Callable[[str, list[str]], list[str]]) -> list[str]:
    """Return the words that begin with the last one; *names* tells what the server knows of a kind."""
    *before, current = words or [""]
    verb, path, rest = _verb(before)
    if verb is None and (pending := _pending(GLOBALS, before)):
        return _of_kind(pending.takes, current, before, names)
    if verb is None:
        offered = [flag_name(flag) for flag in GLOBALS] if current.startswith("-") else members(VERBS, path)
        return _beginning(offered, current)
    if "--" in rest and verb.runs.startswith("execution"):
        return [_FILES]
    flags = (*verb.flags, *GLOBALS)
    if pending := _pending(flags, rest):
        return _of_kind(pending.takes, current, before, names)
    if current.startswith("-"):
        return _beginning([flag_name(flag) for flag in flags], current)
    return _of_kind(_kind_at(verb, _count_words(flags, rest)), current, before, names)


def flag_name(flag: Flag) -> str:
    return f"--{flag.name}"


def _verb(before: list[str]) -> tuple[Verb | None, str, list[str]]:
    """Return the verb, or the group so far, and the words after it."""
    path: list[str] = []
    rest = list(before)
    while rest:
        word = rest.pop(0)
        if word.startswith("-"):
            if (flag := _flag(GLOBALS, word)) and flag.takes and "=" not in word and rest:
                rest.pop(0)
            continue
        path.append(word)
        if verb := find(VERBS, path):
            return verb, "", rest
        if " ".join(path) not in GROUPS:
            return None, "\x00", []
    return None, " ".join(path), []


def _flag(flags: Sequence[Flag], word: str) -> Flag | None:
    name = word.lstrip("-").partition("=")[0]
    by_name = word.startswith("--")
    return next((flag for flag in flags if name == (flag.name if by_name else flag.short)), None)


def _pending(flags: Sequence[Flag], rest: list[str]) -> Flag | None:
    """Return the flag whose value is being typed."""
    if not rest or not rest[-1].startswith("-"):
        return None
    flag = _flag(flags, rest[-1])
    return flag if flag and flag.takes and not flag.bare and "=" not in rest[-1] else None


def _count_words(flags: Sequence[Flag], rest: list[str]) -> int:
    count, is_value = 0, False
    for word in rest:
        if is_value:
            is_value = False
        elif word.startswith("-"):
            is_value = _pending(flags, [word]) is not None
        else:
            count += 1
    return count


def _kind_at(verb: Verb, index: int) -> str:
    """Return what the word at *index* names. A repeated word may be any number; the last spec goes on."""
    specs = verb.words.split()
    if not specs:
        return ""
    repeated = next((i for i, spec in enumerate(specs) if "..." in spec), None)
    if repeated is not None and index >= repeated:
        # `file push FILE... INSTANCE/PATH`: from the second word on it may be either
        return kind_of("+".join(specs[repeated:]) if index > repeated else specs[repeated])
    return kind_of(specs[index]) if index < len(specs) else ""


def _of_kind(
    kind: str, current: str, before: list[str], names: Callable[[str, list[str]], list[str]]
) -> list[str]:
    found: list[str] = []
    for part in kind.split("+"):
        if part in _FIXED:
            found += _FIXED[part]
        elif part in ("FILE", "TARGET"):
            found.append(_FILES)
        elif part == "INSTANCE/PATH":
            found += [f"{name}/" for name in names("INSTANCE", before)]
        else:
            found += names(part, before)
    return _beginning(found, current)


def _beginning(words: Sequence[str], current: str) -> list[str]:
    return [word for word in words if word == _FILES or word.startswith(current)]


def _names_from_server(kind: str, before: list[str]) -> list[str]:
    from urllib.parse import unquote, urlsplit

    from cli.server import Server, url

    if kind not in (*_PLACES, "OPERATION", "DEVICE"):
        return []
    project = next((p for f, p in pairwise(before) if f == "--project"), "")
    server = Server(project=project or Call(parse(VERBS, [], GROUPS)).project)
    if kind == "OPERATION":
        groups = server.get(url("operations"))
        return [path.rpartition("/")[2] for paths in groups.values() for path in paths]
    if kind == "DEVICE":
        place = "profiles" if before[0] == "profile" else "instances"
        owner = [word for word in before if not word.startswith("-")][3]
        return list(server.get(url(place, owner))["devices"])
    place = _PLACES[kind]
    paths = server.get(f"/1.0/{place}")
    start = len(f"/1.0/{place}/")
    return [unquote(urlsplit(path).path[start:]) for path in paths]
