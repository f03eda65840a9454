"""Which programs a shell script starts, with which words and variables: as far as that can be known without running it.

What decides words is followed: quotes, variables, lists of commands, conditions and loops (whose every branch counts). What it
would take a shell to know, such as a command's output, is an unknown value. What could change the reading of everything else
(eval, files that are sourced, functions, here-documents) makes the script unreadable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from serving.unknowns import Shape, Unknowns


class UnreadableError(Exception):
    """A command that cannot be followed; the text is one clause that says why."""


@dataclass(frozen=True)
class Started:
    """A command that runs: its words, and the variables it sees."""

    words: tuple[str, ...]
    env: Mapping[str, str]


_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_ASSIGNMENT = re.compile(rf"({_NAME})(\+?)=")
_BLANKS = re.compile(r"(?:[ \t]|\\\n)+")
_REDIRECTION = re.compile(r"\d*(?:<<<|<<-?|<>|>>|>\||[<>]&|&>>?|<|>)")
_OPERATOR = re.compile(r"&&|\|\||;;|;&|\|&|[;&|()\n]")
_ENDS_WORD = frozenset(" \t\n;&|()<>")
_VARIABLE = re.compile(rf"\$(?:({_NAME}|[0-9@*])|\{{({_NAME}|[0-9]+|[@*])\}})")
_DEFAULTED = re.compile(rf"\$\{{({_NAME}):?-[^{{}}$`\"'\\]*\}}")
_SHELL_NUMBER = re.compile(r"\$[#?$]")
_OTHER_EXPANSION = re.compile(r"\$[!-]|\$\{[^{}`\"'\\]*\}")
_PATTERN = re.compile(r"[*?\[]|\{[^}]*(?:,|\.\.)")
_NO_PATTERNS = frozenset({"[", "]", "[[", "]]"})
_SPACE = re.compile(r"[ \t\n]+")

_OPENS = frozenset({"if", "while", "until", "for", "{"})
_CLOSES = frozenset({"fi", "done", "}"})
_PREFIXES = frozenset({"!", "then", "elif", "else", "do", "time"})
_UNREADABLE_WORDS = {
    "case": "a case statement",
    "select": "a select statement",
    "function": "a function",
    "coproc": "a coprocess",
}
_UNREADABLE_BUILTINS = {"eval": "eval", "source": "another file", ".": "another file", "alias": "an alias"}
_ALL = frozenset({"@", "*"})
_DECLARES = frozenset({"export", "readonly", "declare", "typeset", "local"})
_SETS_NAMES = frozenset({"read", "unset", "getopts", "mapfile", "readarray", "printf", "for", "let"})


_ONLY_A_SHELL = ("it is an expansion that only a shell can make", Shape.TEXT)


@dataclass(frozen=True)
class _Piece:
    """A part of a word: literal text, a variable by name, the output of another script, or a value that is unknown.

    A variable with an unknown value beside it has that value where it is empty.
    """

    text: str = ""
    quoted: bool = False
    variable: str | None = None
    script: str | None = None
    unknown: tuple[str, Shape] | None = None


_Word = tuple[_Piece, ...]


@dataclass(frozen=True)
class _Simple:
    """A simple command before expansion.

    `certain` if it runs, in the script's own shell, wherever the commands behind it do; `chained` if that holds only as far as
    the `&&` behind it reach.
    """

    words: tuple[_Word, ...]
    certain: bool
    chained: bool


def started(script: str, env: Mapping[str, str], arguments: Sequence[str], unknowns: Unknowns) -> list[Started]:
    """Return every simple command of a script in order; `arguments` are $0, $1 and so on.

    `env` and the words that come back may hold marks of `unknowns`. Raises `UnreadableError` if the script cannot be followed.
    """
    why = unknowns.why(script, Shape.TEXT, Shape.WORDS)
    if why is not None:
        raise UnreadableError(why)
    return _Run(env, arguments, unknowns).script(script)


# --- from text to simple commands -----------------------------------------------------------------------------------


class _Lexer:
    def __init__(self, text: str, at: int = 0) -> None:
        self.text = text
        self.at = at

    def token(self) -> str | _Word | None:
        """Return the next operator or word, None at the end; redirections are passed over."""
        self._match(_BLANKS)
        if self.text.startswith("#", self.at):
            self.at = f"{self.text}\n".index("\n", self.at)
        if self.at >= len(self.text):
            return None
        if self.text.startswith(("<(", ">("), self.at):
            return self._word()
        redirection = self._match(_REDIRECTION)
        if redirection is None:
            return self._match(_OPERATOR) or self._word()
        if "<<" in redirection:
            raise UnreadableError("the shell script has a here-document")
        self.token()
        return self.token()

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self.text, self.at)
        if match is None:
            return None
        self.at = match.end()
        return match[0]

    def _word(self) -> _Word:
        pieces: list[_Piece] = []
        if self.text.startswith(("<(", ">("), self.at):
            self.at += 2
            pieces.append(_Piece(script=self._to_parenthesis(), quoted=True))
        while self.at < len(self.text) and self.text[self.at] not in _ENDS_WORD:
            character = self.text[self.at]
            if character == "'":
                pieces.append(_Piece(self._to_quote(), quoted=True))
            elif character == '"':
                self.at += 1
                pieces += self._double_quoted()
            elif character in "$`":
                pieces.append(self._expansion(quoted=False))
            else:
                pieces.append(self._literal())
        return tuple(pieces)

    def _literal(self) -> _Piece:
        if self.text[self.at] != "\\":
            self.at += 1
            return _Piece(self.text[self.at - 1])
        escaped = self.text[self.at + 1 : self.at + 2]
        self.at += 2
        return _Piece("" if escaped == "\n" else escaped or "\\", quoted=escaped != "\n")

    def _to_quote(self) -> str:
        end = self.text.find("'", self.at + 1)
        if end < 0:
            raise UnreadableError("the shell script has a quote that is not closed")
        text = self.text[self.at + 1 : end]
        self.at = end + 1
        return text

    def _double_quoted(self) -> list[_Piece]:
        pieces: list[_Piece] = []
        while self.at < len(self.text):
            character = self.text[self.at]
            if character == '"':
                self.at += 1
                return pieces or [_Piece(quoted=True)]
            if character in "$`":
                pieces.append(self._expansion(quoted=True))
                continue
            escaped = self.text[self.at + 1 : self.at + 2]
            if character == "\\" and escaped in {"$", "`", '"', "\\", "\n"}:
                self.at += 2
                pieces.append(_Piece("" if escaped == "\n" else escaped, quoted=True))
                continue
            self.at += 1
            pieces.append(_Piece(character, quoted=True))
        raise UnreadableError("the shell script has a quote that is not closed")

    def _expansion(self, *, quoted: bool) -> _Piece:
        text, at = self.text, self.at
        if text[at] == "`":
            end = text.find("`", at + 1)
            if end < 0 or "\\" in text[at:end]:
                raise UnreadableError("the shell script has backquotes that are not followed")
            self.at = end + 1
            return _Piece(quoted=quoted, script=text[at + 1 : end])
        if text.startswith("$((", at):
            self.at += 2
            self._to_parenthesis()
            return _Piece(quoted=quoted, unknown=("it is the result of arithmetic", Shape.WORD))
        if text.startswith("$(", at):
            self.at += 2
            return _Piece(quoted=quoted, script=self._to_parenthesis())
        match = _VARIABLE.match(text, at)
        if match is not None:
            self.at = match.end()
            return _Piece(quoted=quoted, variable=match[1] or match[2])
        match = _DEFAULTED.match(text, at)
        if match is not None:
            self.at = match.end()
            return _Piece(quoted=quoted, variable=match[1], unknown=_ONLY_A_SHELL)
        if self._match(_SHELL_NUMBER):
            return _Piece(quoted=quoted, unknown=("it is a number that the shell sets", Shape.WORD))
        if self._match(_OTHER_EXPANSION):
            return _Piece(quoted=quoted, unknown=_ONLY_A_SHELL)
        if text.startswith("${", at) or (not quoted and text.startswith(("$'", '$"'), at)):
            raise UnreadableError("the shell script has an expansion that only a shell can make")
        if not quoted:  # bash 5.2 does not split $FLAGS in `$FLAGS$`
            raise UnreadableError("the shell script has a dollar sign without quotes")
        self.at += 1
        return _Piece("$", quoted=True)

    def _to_parenthesis(self) -> str:
        """Return the text up to the parenthesis that closes the one before it."""
        inner = _Lexer(self.text, self.at)
        depth = 1
        while depth:
            token = inner.token()
            if token is None:
                raise UnreadableError("the shell script has a parenthesis that is not closed")
            depth += {"(": 1, ")": -1}.get(token, 0) if isinstance(token, str) else 0
        text = self.text[self.at : inner.at - 1]
        self.at = inner.at
        return text


class _Parser:
    """Cuts a script into simple commands. Every branch and every round of a loop counts."""

    def __init__(self) -> None:
        self._commands: list[_Simple] = []
        self._words: list[_Word] = []
        self._before = ";"
        self._depth = 0

    def commands(self, script: str) -> list[_Simple]:
        lexer = _Lexer(script)
        while (token := lexer.token()) is not None:
            if isinstance(token, str):
                self._operator(token)
            else:
                self._word(token)
        self._end(";")
        return self._commands

    def _operator(self, operator: str) -> None:
        if operator == "(":
            if self._words:
                raise UnreadableError("the shell script has a function or an array")
            self._depth += 1
            return
        self._end(operator)
        if operator == ")":
            self._depth -= 1

    def _word(self, word: _Word) -> None:
        reserved = "".join(piece.text for piece in word)
        if self._words or any(piece != _Piece(piece.text) for piece in word):
            self._words.append(word)
        elif reserved in _UNREADABLE_WORDS:
            raise UnreadableError(f"the shell script has {_UNREADABLE_WORDS[reserved]}")
        elif reserved in _OPENS:
            self._depth += 1
            if reserved == "for":
                self._words.append(word)
        elif reserved in _CLOSES:
            self._depth -= 1
        elif reserved not in _PREFIXES:
            self._words.append(word)

    def _end(self, operator: str) -> None:
        if not self._words and operator == "\n":
            return  # the end of a line behind && or | does not end the list
        if self._words:
            elsewhere = self._depth > 0 or self._before in {"||", "|", "|&"} or operator in {"|", "|&", "&"}
            self._commands.append(_Simple(tuple(self._words), not elsewhere, self._before == "&&"))
        self._words = []
        self._before = operator


# --- from simple commands to what runs -------------------------------------------------------------------------------


class _Run:
    def __init__(self, env: Mapping[str, str], arguments: Sequence[str], unknowns: Unknowns) -> None:
        self._env = dict(env)
        self._arguments: Sequence[str] | None = arguments
        self._unknowns = unknowns
        self._started: list[Started] = []

    def script(self, script: str) -> list[Started]:
        commands = _Parser().commands(script)
        for command in commands:
            if not command.certain:  # a later round of a loop sees what an earlier one has set
                self._forget(command.words)
        chain: set[str] = set()
        for command in commands:
            if not command.chained:
                self._forget_names(chain)
                chain = set()
            chain |= self._run(command)
        return self._started

    def _run(self, command: _Simple) -> set[str]:
        """Note what a simple command starts, and return the names that it sets."""
        at = next((at for at, word in enumerate(command.words) if _assignment(word) is None), len(command.words))
        before = dict(self._env)
        assigned = self._assigned(command.words[:at])
        if at == len(command.words):
            return self._set(assigned, command)
        self._env = before  # words are expanded before the assignments in front of them count
        words = [field for word in command.words[at:] for field in self._fields(word)]
        if not words:
            return set()
        if words[0] in _UNREADABLE_BUILTINS:
            raise UnreadableError(f"the shell script has {_UNREADABLE_BUILTINS[words[0]]}")
        self._started.append(Started(tuple(words), {**self._env, **assigned}))
        if words[0] in {"set", "shift"}:
            self._arguments = None
        if words[0] in _DECLARES:
            return self._set(self._assigned(command.words[at + 1 :]), command)
        if words[0] in _SETS_NAMES:
            self._forget_names(words[1:])
        return set()

    def _set(self, assigned: Mapping[str, str], command: _Simple) -> set[str]:
        if "IFS" in assigned:
            raise UnreadableError("the shell script sets IFS")
        self._env.update(assigned)
        if not command.certain:
            self._forget_names(assigned)
        return set(assigned) if command.chained else set()

    def _forget(self, words: Iterable[_Word]) -> None:
        self._forget_names(found[0] for word in words if (found := _assignment(word)))

    def _forget_names(self, names: Iterable[str]) -> None:
        for name in names:
            self._env[name] = self._unknowns.mark(f"the shell script sets {name} under a condition")

    def _assigned(self, words: Iterable[_Word]) -> dict[str, str]:
        """Make assignments from left to right, and return them: each one word, whatever the value holds."""
        assigned: dict[str, str] = {}
        for found in filter(None, map(_assignment, words)):
            name, appends, rest = found
            value = "".join(self._value(piece) for piece in rest)
            assigned[name] = self._env[name] = self._variable(name) + value if appends else value
        return assigned

    def _fields(self, word: _Word) -> list[str]:
        """Return the words that a shell makes of one: none, one or several."""
        bare = "".join(piece.text if piece == _Piece(piece.text) else " " for piece in word)
        if bare not in _NO_PATTERNS and _PATTERN.search(bare):
            return [self._unknowns.mark("it is a pattern that a shell compares with files", Shape.WORDS)]
        if re.search("(^|[=:])~", bare):
            shape = (
                Shape.TEXT if all(piece == _Piece(piece.text, quoted=piece.quoted) for piece in word) else Shape.WORDS
            )
            return [self._unknowns.mark("it names the home folder", shape)]
        fields: list[str | None] = [None]
        for piece in word:
            if piece.variable == "@" and piece.quoted and self._arguments is not None:
                items = list(self._arguments[1:])
            elif piece.variable is None and piece.script is None and piece.unknown is None:
                items = [piece.text]
                if not piece.text and not piece.quoted:
                    continue
            else:
                value = self._value(piece)
                items = [value] if piece.quoted else _SPACE.split(self._splitting(value))
            for at, item in enumerate(items):
                if at:
                    fields.append(None)
                if item or piece.quoted:
                    fields[-1] = (fields[-1] or "") + item
        return [item for item in fields if item is not None]

    def _splitting(self, value: str) -> str:
        """Return what a value that is not quoted may be: several words, or the names of files."""
        why = self._unknowns.why(value, Shape.TEXT)
        if why is not None:
            return self._unknowns.mark(f"{why}, and it is not quoted, so that it may be several words", Shape.WORDS)
        if _PATTERN.search(value):
            return self._unknowns.mark("it is a pattern that a shell compares with files", Shape.WORDS)
        return value

    def _value(self, piece: _Piece) -> str:
        if piece.script is not None:
            inner = _Run(self._env, self._arguments or (), self._unknowns)
            self._started += inner.script(piece.script)
            return self._unknowns.mark("it is the output of a command")
        if piece.variable is not None:
            value = self._variable(piece.variable)
            if value or piece.unknown is None:
                return value
        return self._unknowns.mark(*piece.unknown) if piece.unknown else piece.text

    def _variable(self, name: str) -> str:
        if not name.isdecimal() and name not in _ALL:
            return self._env.get(name, self._unset(name))
        if self._arguments is None:
            return self._unknowns.mark("the shell script sets its own arguments", Shape.WORDS)
        if name in _ALL:
            return " ".join(self._arguments[1:])
        return self._arguments[int(name)] if int(name) < len(self._arguments) else ""

    def _unset(self, name: str) -> str:
        return self._unknowns.mark(f"{name} is not set in the manifest, and the image may set it")


def _assignment(word: _Word) -> tuple[str, bool, tuple[_Piece, ...]] | None:
    """Return name, whether it appends, and the pieces of the value, if a word is an assignment."""
    bare = ""
    for at, piece in enumerate(word):
        if piece.quoted or piece != _Piece(piece.text):
            return None
        bare += piece.text
        match = _ASSIGNMENT.fullmatch(bare)
        if match is not None:
            return match[1], match[2] == "+", word[at + 1 :]
    return None
