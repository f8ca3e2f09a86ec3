"""Secrets known by the word beside them: `password=...`, headers, flags, tags, connection strings.

A value must look like a value: placeholders, code and plain words beside a key word stay, so that
a manual that explains passwords can be read after it was scrubbed.

Threat: PHI leakage in audit logs
"""

from collections.abc import Iterator

from app.privacy.linear_regex import compiled

Span = tuple[int, int, str]

# One optional joint ("_", "-", ".", " ") is allowed wherever a "~" stands.
_STRONG_WORDS = (
    "password passwd passwort kennwort motdepasse contrasena contraseña passphrase passcode pwd "
    "secret client~secret app~secret shared~secret consumer~secret webhook~secret jwt~secret "
    "signing~secret api~secret secret~key secret~access~key api~key api~token access~token "
    "refresh~token auth~token id~token bearer~token session~token security~token oauth~token "
    "bot~token user~token device~token csrf~token xsrf~token personal~access~token private~token "
    "private~key signing~key encryption~key master~key root~key account~key shared~access~key "
    "access~key storage~key service~key license~key deploy~key session~key "
    "auth~key subscription~key consumer~key webhook~url db~pass user~pass smtp~pass mysql~pwd "
    "pgpassword htpasswd"
)
STRONG = tuple(_STRONG_WORDS.split())
_WEAK_WORDS = (
    "token auth pass pin otp signature sig session sid jwt credential credentials cred creds"
)
WEAK = tuple(_WEAK_WORDS.split())
# Keys that end in a key word and hold no secret.
HARMLESS_KEYS = (
    "pagetoken", "nexttoken", "continuationtoken", "synctoken", "cancellationtoken", "stoptoken",
    "eostoken", "bostoken", "padtoken", "publicaccesskey",
)  # fmt: skip
SHORTEST_VALUE = 6
_LOOK_BACK = 24
_HARMLESS_ENDS = tuple(key.encode() for key in HARMLESS_KEYS)
_SHORTEST_WEAK = 8
_SHORTEST_LETTERS = 24  # letters only are a word, unless no word is that long
_JOINT = r"[_\-. ]?"


def _any_of(words: tuple[str, ...]) -> str:
    ordered = sorted(words, key=len, reverse=True)
    return "|".join(word.replace("~", _JOINT) for word in ordered)


_STRONG = _any_of(STRONG)
_WEAK = _any_of(WEAK)
_QUOTED = (
    r'"(?:[^"\\\n]|\\.)+|'
    r"'(?:[^'\\\n]|\\.)+|`[^`\n]+|"
    r'\\+"[^"\\\n]+|\\+\'[^\'\\\n]+'
)
_BARE = r"[^\s\"'`,;&<>\\(){}\[\]|]+(?:[\[({][^\s]?)?"
# What every pattern below and every secret key name holds, with what cannot follow it: "author",
# "passed" and "tokens" are too frequent to pay for. It is also asked of canonical JSON, where a
# line break is `\n`: so no word boundary before a word, and a backslash counts as space after it.
_END = r"(?:[^a-z]|$)"
WORD_GATE = (
    rf"(?i:pass(?:[wpc]|{_END})|pwd|kennwort|contrase|motdepasse|secret|token(?:[^s]|$)|cookie|bearer|jwt|"
    rf"(?:api|access|private|signing|encryption|master|root|account|storage|service|license|deploy|"
    rf"session|auth|subscription|consumer){_JOINT}key|authori[sz]|auth{_END}|signature|sig{_END}|"
    rf"session{_END}|sid{_END}|credential|creds?{_END}|pin{_END}|otp{_END}|webhook{_JOINT}url|"
    rf"machine[\s\\]|curl[\s\\]|mysql|mariadb|response=)"
)

PAIR = (
    rf"(?i)(^|[^a-z])?((?:{_STRONG})|(?:{_WEAK}))[0-9_]{{0,3}}"
    r"((?:\\{0,3}[\"'`])?\]?\)?\s{0,8}(?:=>|:=|==?=?|:|%3[da]|[\x{ff1a}\x{ff1d}])\s{0,8})"
    rf"((?:[brfu]{{1,2}})?(?:{_QUOTED})|{_BARE})"
)
_ANY = rf"(?:{_STRONG}|token)"
FLAG = rf"(?i)--?(?:[a-z]{{1,20}}-){{0,4}}{_ANY}\s+[\"']?([^\s\"'`$<\[{{-][^\s\"'`]{{5,}})"
SPOKEN = (
    rf"(?i)\b(?:{_STRONG}|token|pin)\b[^\n.:=]{{0,24}}?\s(?:is|was|to|ist|es|est)\b:?"
    r"\s+[\"'`]?([^\s\"'`<>]{6,})"
)
TAG = (
    rf"(?i)<(?:[a-z0-9]{{1,20}}:)?[a-z0-9_.-]{{0,30}}{_ANY}(?:\s[^<>]{{0,200}})?>"
    r"([^<>\s]{6,})<"
)
ATTRIBUTE = (
    rf"(?i)(?:name|key|id)=[\"'][^\"'<>]{{0,60}}{_ANY}[\"']\s{{1,8}}value=[\"']([^\"'<>]{{6,}})"
)
BEARER = r"(?i)\bbearer[\"'\\:=\s]{1,5}([a-z0-9._~+/=-]{8,})"
AUTHORIZATION = (
    r"(?i)authorization[\"'\\\]]{0,4}\s{0,4}(?:[:=,]|=>)\s{0,4}[\"'\\\[]{0,4}"
    r"(?:(?:basic|token|negotiate|ntlm|apikey|api-key|key|hawk|oauth|splunk|bot|genie-?key)\s+)?"
    r"([a-z0-9._~+/=:!@#%-]{6,})"
)
DIGEST = r"(?i)\bresponse=\\?[\"']([0-9a-f]{32,64})"
COOKIE = (
    r"(?i)\b(?:set-)?cookie[\"'\\\]]{0,4}\s{0,4}[:,]\s{0,4}[\"'\\\[]{0,4}"
    r"([a-z0-9_.$-]{1,64}=[^\r\n\"'\\]+)"
)
CURL_USER = (
    r"(?i)\bcurl\s(?:[^\n]|\\\n)*?(?:-u|--user|--proxy-user)[= ]{0,2}[\"']?[^\s:\"']{1,128}:"
    r"([^\s\"'$<{\[]+)"
)
CLIENT = (
    r"(?i)\b(?:sshpass\s(?:[^\n]|\\\n)*?-p\s{0,8}|"
    r"(?:mysql(?:dump|admin|import)?|mariadb(?:-[a-z]{1,10})?)\s(?:[^\n]|\\\n)*?\s-p)"
    r"[\"']?([^\s\"'$<{\[-][^\s\"']{3,})"
)
CONNECTION = (
    r"(?i)(?:;\s{0,4}|[\"'])(?:password|pwd|accountkey|sharedaccesskey|sharedsecret)"
    r"\s{0,4}=\s{0,4}([^;\"'\s$<{\[*]+)"
)
CONNECTION_HEAD = (
    r"(?i)\b(?:password|pwd)\s{0,2}=\s{0,2}([^;\"'\s$<{\[*]+);\s{0,4}"
    r"(?:user|uid|server|data source|host|database|initial)"
)
DSN = (
    r"(?i)\b(?:host|hostaddr|user|dbname|port)=[^\s\"']+\s+"
    r"(?:[a-z_]+=[^\s\"']+\s+){0,8}password=([^\s\"'&,)$<{\[*]+)"
)
NETRC = r"(?i)\bmachine\s+\S+\s+login\s+\S+\s+password\s+([^\s\[]\S*)"

# name, pattern, whether the value has to pass as random-looking
WORDED: tuple[tuple[str, str, bool], ...] = (
    ("cookie", COOKIE, False),
    ("authorization", AUTHORIZATION, True),
    ("bearer", BEARER, True),
    ("digest-response", DIGEST, False),
    ("cli-flag", FLAG, True),
    ("spoken", SPOKEN, True),
    ("xml-tag", TAG, True),
    ("xml-attribute", ATTRIBUTE, False),
    ("curl-user", CURL_USER, False),
    ("client-password", CLIENT, True),
    ("connection-string", CONNECTION, False),
    ("connection-head", CONNECTION_HEAD, False),
    ("dsn", DSN, False),
    ("netrc", NETRC, False),
)

_OPENING = compiled(r"(?:[brfuBRFU]{1,2})?\\*[\"'`]")
_PLACEHOLDER = compiled(
    r"(?i)\$[({]|\$[a-z_][a-z0-9_]*$|%\(|%[a-z_]+%$|\{|<|\[|\*{3}|x{4}|\.{3}|(?:your|my)(?:[_-][a-z]+){1,5}$|(?:none|null|nil|undefined|true|false|"
    r"redacted|hidden|masked|example|required|optional|string|changeit|placeholder|todo|unset|empty)\W{0,3}$|"
    r"(?:os|env|process|config|settings|self|this|secrets|vault|args|request|req|ctx)[.:]"
)
_CHAIN = compiled(r"[A-Za-z_][A-Za-z0-9_]*(?:(?:\.|->|::)[A-Za-z_][A-Za-z0-9_]*)+[?!]?")
_CALL = compiled(r"[A-Za-z_][A-Za-z0-9_.:]*[(\[{].?")
_WORD = compiled(r"[A-Za-z_-]+[.!?:)]{0,2}")
_CAMEL = compiled(r"[a-z]*(?:[A-Z]{1,3}[a-z]{2,}|[A-Z]{2,})+")
_TECHNICAL = compiled(
    r"(?i)(?:scram-)?(?:base(?:32|58|64)(?:url)?|utf-?(?:8|16)|sha-?[0-9-]{1,7}|md5|ed25519|aes-?[0-9]+|"
    r"[hrep]s(?:256|384|512)|oauth2?|x509|argon2(?:id?)?|https?)(?:-(?:encoded|hash))?"
)
_NAME = compiled(r"[A-Za-z_][A-Za-z0-9_]*")
_ID = compiled(r"[a-z]{2,8}_[0-9a-f]{32}|(?i:[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})")
_OWN_ID = compiled(r"[a-z]{2,8}_[0-9a-f]{32}")
_HAS_DIGIT = compiled(r"[0-9]")
_HAS_LETTER = compiled(r"[A-Za-z]")
_HAS_SIGN = compiled(r"[!@#$%^&*+~=?]|[^\x00-\x7f]")
_MIXED_INSIDE = compiled(r"[a-z][A-Z].*[A-Z]|[A-Z][a-z]*[A-Z][A-Z]+[a-z]")
_LOCATION = compiled(r"(?i)(?:https?|file)://|[./~]{0,2}/?(?:[a-z0-9_.-]+/)+[a-z0-9_.-]*$")
_NUMBER = compiled(r"[-+]?[0-9]{1,6}(?:[.:/-][0-9]+){0,6}[a-z%]{0,3}")


def is_placeholder(value: bytes) -> bool:
    """Whether a value only says where a secret would stand."""
    return _PLACEHOLDER.match(value) is not None or value.strip(b"*xX.-_# ") == b""


def is_random_looking(value: bytes) -> bool:
    """Whether a bare value is more than a word, a number, an address or a piece of code."""
    value = value.rstrip(b".,;:)!?")
    if len(value) < SHORTEST_VALUE or is_placeholder(value) or _OWN_ID.fullmatch(value):
        return False
    if _CHAIN.fullmatch(value) or _CALL.fullmatch(value) or _NUMBER.fullmatch(value):
        return False
    if _LOCATION.match(value) is not None or _TECHNICAL.fullmatch(value) is not None:
        return False
    if _WORD.fullmatch(value) is not None:
        return (_MIXED_INSIDE.search(value) is not None and _CAMEL.fullmatch(value) is None) or (
            len(value) >= _SHORTEST_LETTERS and b"-" not in value and b"_" not in value
        )
    return bool(_HAS_DIGIT.search(value) or _HAS_SIGN.search(value))


def is_weak_value(value: bytes) -> bool:
    """The same beside a word that mostly does not mean a secret (`token`, `session`, `pass`)."""
    if len(value) < _SHORTEST_WEAK or _ID.fullmatch(value) is not None:
        return False
    both = _HAS_DIGIT.search(value) is not None and _HAS_LETTER.search(value) is not None
    return both and b" " not in value and is_random_looking(value)


def _same(word: bytes, value: bytes) -> bool:
    """A value that repeats its key is an example or an enumeration, not a secret."""
    return word.translate(None, b"_-. ").lower() == value.translate(None, b"_-. ").lower()


class PairRule:
    """Key word, sign, value, in the spellings of JSON, env, code, YAML, INI and query strings."""

    name = "keyword"

    def __init__(self) -> None:
        self._pattern = compiled(PAIR)
        self._strong = compiled(f"(?i)(?:{_STRONG})")

    def spans(self, text: bytes) -> Iterator[Span]:
        """The values to cut out, in order."""
        for found in self._pattern.finditer(text):
            word, sign, value = (found.group(at) or b"" for at in (2, 3, 4))
            start, end = found.start(4), found.end(4)
            near = text[max(0, found.start(2) - _LOOK_BACK) : found.end(2)]
            if near.translate(None, b"_-.").lower().endswith(_HARMLESS_ENDS):
                continue
            strong = self._strong.fullmatch(word) is not None
            opened = _OPENING.match(value)
            quote = 0 if opened is None else opened.end()
            value = value[quote:]
            if quote:
                take = not _same(word, value) and self._quoted(strong=strong, value=value)
            else:
                if not strong and found.group(1) is None:
                    continue  # "compass: ..." is not "pass: ..."
                take = self._bare(text, found.start(2), strong, sign, value)
            if take:
                yield start + quote, end - (len(value) - len(value.rstrip(b"\\"))), self.name

    @staticmethod
    def _quoted(*, strong: bool, value: bytes) -> bool:
        if not strong:
            return is_weak_value(value)
        if len(value) < SHORTEST_VALUE or b" " in value or is_placeholder(value):
            return False
        return _CHAIN.fullmatch(value) is None and not value.startswith((b"http://", b"https://"))

    @staticmethod
    def _bare(text: bytes, at: int, strong: bool, sign: bytes, value: bytes) -> bool:
        if not strong:
            return is_weak_value(value)
        if is_random_looking(value):
            return True
        before = text[at - 1 : at]
        written_down = text[at : at + 1].isupper() or before in (b"?", b"&", b"_")
        return (
            written_down
            and sign.strip(b" ") in (b"=", b"%3D", b"%3d")
            and b" " not in sign
            and len(value) >= SHORTEST_VALUE
            and not is_placeholder(value)
            and _NAME.fullmatch(value) is not None
            and value.isalpha()
        )
