"""What credentials look like, as data: vendors' token prefixes with the shape of what follows.

A family is its literals (what a text must hold before the pattern is tried at all) and one RE2
pattern whose capture, or whole match when there is none, is cut out. Written from the vendors' own
pages on their token formats. Lengths are lower bounds wherever the prefix is long enough to stand
alone: vendors lengthen their tokens more often than they rename them.

Threat: PHI leakage in audit logs
"""

from dataclasses import dataclass

# Before a short prefix: no letter or digit, or the tail of an escape ("\n", "%20") that a
# token may directly follow when text was escaped into text.
_EDGE = r"(?:^|[^A-Za-z0-9]|\\[nrtbf]|\\u[0-9A-Fa-f]{4}|%[0-9A-Fa-f]{2})"
_UUID = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
_SYLLABLE = 4  # literals up to here are parts of ordinary words ("task-", "path")
_AN = "[A-Za-z0-9]"
_W = "[A-Za-z0-9_-]"
_HEX = "[0-9a-fA-F]"


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of secret; where there are `needles`, a text without any of them has none."""

    name: str
    needles: tuple[str, ...]
    pattern: str


def _plain(name: str, prefixes: str, body: str) -> Family:
    """Prefixes that mean nothing else in the world: no boundary is asked for on the left."""
    needles = tuple(prefixes.split())
    heads = "|".join(_literal(needle) for needle in needles)
    return Family(name, needles, f"((?:{heads}){body})")


def _edged(name: str, prefixes: str, body: str) -> Family:
    """Prefixes short enough to end an ordinary word: a boundary must stand before them."""
    needles = tuple(prefixes.split())
    heads = "|".join(_literal(needle) for needle in needles)
    rare = min(map(len, needles)) > _SYLLABLE
    return Family(name, needles if rare else (), f"{_EDGE}((?:{heads}){body})")


def _literal(text: str) -> str:
    return "".join(f"\\{sign}" if sign in r".$+*?()[]{}|^\/" else sign for sign in text)


_CRYPT = (
    "$1$", "$2a$", "$2b$", "$2x$", "$2y$", "$5$", "$6$", "$7$", "$y$", "$gy$", "$apr1$", "$argon2",
    "$scrypt$", "$pbkdf2", "$sha1$",
)  # fmt: skip

FAMILIES: tuple[Family, ...] = (
    # Models and what is around them
    _plain("anthropic", "sk-ant-", _W + "{20,}"),
    _plain("openai-project", "sk-proj- sk-svcacct- sk-admin- sk-None-", _W + "{20,}"),
    _plain("openrouter", "sk-or-v1-", _HEX + "{32,}"),
    _plain("langfuse", "sk-lf-", _UUID),
    _plain("langsmith", "lsv2_pt_ lsv2_sk_", _HEX + "{32}_" + _HEX + "{10}"),
    _edged("openai", "sk-", _AN + "{20,}"),
    _plain("google-api", "AIza", _W + "{35,}"),
    _edged("google-auth-key", "AQ.Ab8", _W + "{30,}"),
    _edged("huggingface", "hf_ api_org_", _AN + "{30,}"),
    _edged("groq", "gsk_", _AN + "{40,}"),
    _edged("perplexity", "pplx-", _AN + "{40,}"),
    _edged("xai", "xai-", _AN + "{60,}"),
    _edged("replicate", "r8_", _AN + "{32,}"),
    _plain("nvidia", "nvapi-", _W + "{60,}"),
    _edged("fireworks", "fw_", _AN + "{20,}"),
    _plain("together", "tgp_v1_", _W + "{30,}"),
    _edged("cerebras", "csk-", _AN + "{40,}"),
    _edged("elevenlabs", "sk_", _HEX + "{40,}"),
    _edged("tavily", "tvly-", _W + "{20,}"),
    _plain("pinecone", "pcsk_", "[A-Za-z0-9_]{40,}"),
    _edged("e2b", "e2b_", _HEX + "{40}"),
    _edged("jina", "jina_", _W + "{40,}"),
    _edged("firecrawl", "fc-", _HEX + "{32}"),
    _plain("wandb", "wandb_v1_", "[A-Za-z0-9_]{40,}"),
    _plain("browserbase", "bb_live_", _W + "{20,}"),
    _edged("modal", "ak- as-", _AN + "{22}"),
    # Clouds
    _plain("aws-access-key", "AKIA ASIA ABIA ACCA", "[A-Z0-9]{16}"),
    _plain("aws-bedrock", "ABSK", "[A-Za-z0-9+/]{60,}={0,2}"),
    _plain("aws-bedrock-session", "bedrock-api-key-", "[A-Za-z0-9+/]{40,}={0,2}"),
    _plain("google-oauth", "ya29.", _W + "{20,}"),
    _plain("google-client", "GOCSPX-", _W + "{20,}"),
    _edged("google-refresh", "1//0", _W + "{40,}"),
    Family("azure-client", ("Q~",), r"([A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,40})"),
    Family("azure-key", ("JQQJ99",), r"([A-Za-z0-9]{20,}JQQJ99[A-Za-z0-9]{10,})"),
    _edged("alibaba", "LTAI", _AN + "{16,}"),
    _edged("tencent", "AKID", _AN + "{32,}"),
    _edged("volcengine", "AKLT", _AN + "{40,}"),
    _edged("yandex", "AQVN t1.9eu", _W + "{35,}"),
    _plain("digitalocean", "dop_v1_ doo_v1_ dor_v1_", _HEX + "{40,}"),
    _edged("cloudflare", "cfk_ cfut_ cfat_", _AN + "{40,}"),
    _edged("cloudflare-origin", "v1.0-", _HEX + "{24}-" + _HEX + "{120,}"),
    _edged("heroku", "HRKU-", _W + "{30,}"),
    Family(
        "flyio", ("fm1a_", "fm1r_", "fm2_", "fo1_"), _EDGE + r"((?:fm1[ar]|fm2|fo1)_[\w+/=-]{40,})"
    ),
    _edged("render", "rnd_", _AN + "{20,}"),
    _edged("vercel", "vcp_ vci_ vca_ vcr_ vck_", _W + "{20,}"),
    _edged("netlify", "nfp_ nfc_ nfo_ nfb_ nfu_", _W + "{36,}"),
    _plain("databricks", "dapi", "[0-9a-f]{32}(?:-[0-9])?"),
    _plain("planetscale", "pscale_tkn_ pscale_pw_ pscale_oauth_", "[A-Za-z0-9_.=-]{30,}"),
    _edged("neon", "napi_", _AN + "{40,}"),
    _plain("supabase", "sb_secret_", _W + "{20,}"),
    _edged("supabase-token", "sbp_", _HEX + "{40}"),
    _edged("xata", "xau_", _AN + "{30,}"),
    _edged("upcloud", "ucat_", _AN + "{20,}"),
    _edged("scalingo", "tk-us- tk-eu-", _W + "{40,}"),
    Family("openshift", ("sha256~",), r"(sha256~[A-Za-z0-9_-]{43})"),
    # Source, packages, build
    _plain("github-token", "ghp_ gho_ ghu_ ghs_ ghr_", "[A-Za-z0-9_]{36,}"),
    _plain("github-pat", "github_pat_", "[A-Za-z0-9_]{22,}"),
    _plain("gitlab-pat", "glpat-", "[A-Za-z0-9_.-]{20,}"),
    _plain(
        "gitlab",
        "gldt- glrt- glrtr- glptt- glcbt- glft- glsoat- glimt- glagent- gloas- glffct- glwt-",
        "[A-Za-z0-9_.-]{20,}",
    ),
    _plain("gitlab-runner", "GR1348941", _W + "{20,}"),
    _plain("atlassian", "ATATT3 ATCTT3 ATSTT3", "[A-Za-z0-9_=-]{40,}"),
    _edged("bitbucket", "ATBB", _AN + "{28,}"),
    _edged("trello", "ATTA", _AN + "{60,}"),
    _edged("npm", "npm_", _AN + "{36}"),
    _plain("pypi", "pypi-AgE", _W + "{50,}"),
    _plain("rubygems", "rubygems_", _HEX + "{48}"),
    _edged("nuget", "oy2", "[a-z0-9]{43}"),
    _edged("cargo", "cio", _AN + "{32}"),
    _plain("clojars", "CLOJARS_", "[a-z0-9]{60}"),
    _plain("packagist", "packagist_", "(?:org_)?[a-z]{2,4}_" + _HEX + "{60,}"),
    _plain("docker", "dckr_pat_ dckr_oat_", _W + "{20,}"),
    _plain("sonar", "sqp_ squ_ sqa_", _HEX + "{40}"),
    _plain("sourcegraph", "sgp_", "(?:" + _HEX + "{16}_|local_)?" + _HEX + "{40}"),
    _plain("circleci", "CCIPAT_ CCIPRJ_", "[A-Za-z0-9_]{40,}"),
    _plain("buildkite", "bkua_", _HEX + "{40}"),
    _plain("pulumi", "pul-", _HEX + "{40}"),
    Family("terraform", (".atlasv1.",), r"([A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,})"),
    _edged("prefect", "pnu_ pnb_", _AN + "{36}"),
    _edged("octopus", "API-", "[A-Z0-9]{26,}"),
    _edged("jfrog", "AKCp", _AN + "{60,}"),
    _edged("jfrog-reference", "cmVmdGtu", _AN + "{50,}"),
    _plain("infracost", "ico-", _AN + "{32}"),
    _plain("doppler", "dp.pt. dp.ct. dp.sa. dp.scim. dp.audit.", _AN + "{40,}"),
    Family("doppler-service", ("dp.st.",), r"(dp\.st\.(?:[a-z0-9_-]{2,35}\.)?[A-Za-z0-9]{40,})"),
    _edged("harness", "pat. sat.", r"[A-Za-z0-9_-]{22}\.[0-9a-f]{24}\.[A-Za-z0-9]{20}"),
    _plain("readme", "rdme_", "[a-z0-9]{60,}"),
    # Money
    _plain("stripe", "sk_live_ rk_live_ sk_test_ rk_test_ sk_prod_ rk_prod_", _AN + "{10,}"),
    _plain("webhook-secret", "whsec_", "[A-Za-z0-9+/=_-]{24,}"),
    _plain("square", "sq0atp- sq0csp- sq0idp-", _W + "{20,}"),
    _edged("square-access", "EAAAE EAAAl", _W + "{55,}"),
    _plain("braintree", "access_token$", r"(?:production|sandbox)\$[0-9a-z]{16}\$" + _HEX + "{32}"),
    _edged("razorpay", "rzp_live_ rzp_test_", _AN + "{14,}"),
    _plain("flutterwave", "FLWSECK-", _AN + "{30,}(?:-X)?"),
    _plain("flutterwave-test", "FLWSECK_TEST-", _AN + "{12,}"),
    _plain("mercadopago", "APP_USR-", r"[0-9]{10,}-[0-9]{6}-" + _HEX + "{32}(?:-[0-9]+)?"),
    _plain("plaid", "access-sandbox- access-production- access-development-", _UUID),
    _plain("shippo", "shippo_live_ shippo_test_", _HEX + "{40}"),
    _plain("duffel", "duffel_live_ duffel_test_", _W + "{40,}"),
    _plain("easypost", "EZAK EZTK", _AN + "{54}"),
    _plain("stytch", "secret-live- secret-test-", r"[A-Za-z0-9_=-]{30,}"),
    # Messages and mail
    _plain(
        "slack", "xoxa- xoxb- xoxo- xoxp- xoxr- xoxs- xoxe- xoxc- xoxd-", r"[A-Za-z0-9%+/=-]{10,}"
    ),
    _plain("slack-app", "xapp- xoxe.xox", _W + "{20,}"),
    _plain("sendgrid", "SG.", r"[A-Za-z0-9_-]{20,24}\.[A-Za-z0-9_-]{39,50}"),
    _edged("twilio", "SK", "[0-9a-f]{32}"),
    _edged("mailgun", "key-", "[0-9a-f]{32}"),
    Family("mailchimp", (), r"([0-9a-f]{32}-us[0-9]{1,2})"),
    _plain("brevo", "xkeysib- xsmtpsib-", r"[0-9a-f]{64}-[A-Za-z0-9]{16}"),
    _edged("resend", "re_", r"[A-Za-z0-9]{8}_[A-Za-z0-9]{20,}"),
    _edged("mailersend", "mlsn.", _HEX + "{60,}"),
    Family("telegram", (), r"((?:[0-9]{8,10}):AA[A-Za-z0-9_-]{33})"),
    _edged("facebook", "EAA", _AN + "{80,}"),
    Family("twitter", ("AAAAAAAAAAAAAAAAAAAA",), r"(A{20}[A-Za-z0-9%]{60,})"),
    _plain("linear", "lin_api_ lin_oauth_ lin_wh_", _AN + "{32,}"),
    _edged("notion", "ntn_", _AN + "{40,}"),
    _edged("notion-secret", "secret_", _AN + "{43}"),
    _edged("airtable", "pat", r"[A-Za-z0-9]{14}\.[0-9a-f]{64}"),
    _plain("hubspot", "pat-na1- pat-na2- pat-eu1- pat-ap1-", _UUID),
    _plain("figma", "figd_ figo_ figu_", _W + "{36,}"),
    _edged("typeform", "tfp_", r"[A-Za-z0-9_.=-]{40,}"),
    _edged("dropbox", "sl.", r"(?:u\.)?[A-Za-z0-9_-]{100,}"),
    _plain("frameio", "fio-u-", r"[A-Za-z0-9_=-]{60,}"),
    _plain("nylas", "nyk_v0_", _AN + "{40,}"),
    _plain("contentful", "CFPAT-", _W + "{40,}"),
    _plain("shopify", "shpat_ shpca_ shppa_ shpss_", _HEX + "{32}"),
    _plain("adobe", "p8e-", "[A-Za-z0-9]{32}"),
    _edged("calcom", "cal_live_", _HEX + "{32,}"),
    # Watching and running
    _plain("grafana", "glc_ glsa_", r"[A-Za-z0-9_+/=-]{32,}"),
    _plain("sentry", "sntrys_ sntryu_ sntryi_", r"[A-Za-z0-9_+/=-]{40,}"),
    _plain("newrelic", "NRAK- NRII- NRJS- NRRA- NRAL-", _W + "{19,}"),
    _plain("dynatrace", "dt0c01. dt0s01. dt0s02.", r"[A-Z2-7]{8,24}\.[A-Z2-7]{60,}"),
    _edged("posthog", "phx_", _AN + "{40,}"),
    _plain("postman", "PMAK-", _HEX + "{24}-" + _HEX + "{34}"),
    _edged("launchdarkly", "sdk- api- mob-", _UUID),
    _plain("rootly", "rootly_", _HEX + "{60,}"),
    _plain("tailscale", "tskey-", r"[a-z]+-[A-Za-z0-9]{8,}(?:-[A-Za-z0-9]{8,})?"),
    _plain("mapbox", "sk.eyJ", r"[A-Za-z0-9_-]{40,}\.[A-Za-z0-9_-]{20,}"),
    _plain("vault", "hvs. hvb. hvr.", _W + "{20,}"),
    _plain("onepassword-service", "ops_eyJ", r"[A-Za-z0-9_+/=-]{60,}"),
    _edged("onepassword", "A3-", r"[A-Z0-9]{6}-(?:[A-Z0-9]{5,6}-){4}[A-Z0-9]{5}"),
    _plain("defined", "dnkey-", r"[A-Za-z0-9_=-]{26}-[A-Za-z0-9_=-]{40,}"),
    _plain("zuplo", "zpka_", "[a-z0-9]{32}_[0-9a-f]{8}"),
    # Keys and tokens without a vendor
    _plain("jwt", "eyJ", r"[A-Za-z0-9_-]{10,}(?:\.[A-Za-z0-9_-]*){2,4}"),
    _plain("age", "AGE-SECRET-KEY-1", "[A-Z0-9]{40,}"),
    Family(
        "private-key",
        ("-----BEGIN", "---- BEGIN"),
        r"(?s)(-----? ?BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-----?.*?"
        r"(?:-----? ?END [A-Z0-9 ]{0,40}-----?|\z))",
    ),
    Family(
        "putty-key",
        ("PuTTY-User-Key-File-",),
        r"(?s)(PuTTY-User-Key-File-[0-9]+:.*?(?:Private-MAC: ?[0-9a-fA-F]{40,}|\z))",
    ),
    _edged(
        "private-key-der",
        "MIIEv MIIEp MIIJQ MIIJK MIICX MIIG5",
        r"[A-Za-z0-9+/=]{50,}(?:(?:\r?\n|\\n)[A-Za-z0-9+/=]+)*",
    ),
    Family(
        "crypt-hash",
        _CRYPT,
        r"(\$(?:1|2[abxy]|5|6|7|y|gy|apr1|sha1|scrypt|argon2(?:id|i|d)|pbkdf2[a-z0-9-]{0,10})"
        r"\$[./A-Za-z0-9$=,+-]{20,})",
    ),
    Family(
        "django-hash",
        ("pbkdf2_sha", "bcrypt_sha256$", "scrypt$"),
        r"((?:pbkdf2_sha(?:1|256)|bcrypt_sha256|scrypt)\$[0-9A-Za-z$./+=-]{30,})",
    ),
    Family(
        "ldap-hash",
        ("SHA}", "MD5}"),
        r"(\{S?(?:SHA(?:256|384|512)?|MD5)\}[A-Za-z0-9+/]{20,}={0,2})",
    ),
    Family("kerberos-hash", ("$krb5",), r"(\$krb5(?:tgs|asrep|pa|tgt)\$[^\s\"']{20,})"),
    Family("ntlm-hash", (":::",), r"([0-9a-fA-F]{32}:[0-9a-fA-F]{32}):::"),
    # Places that are secrets by themselves
    Family(
        "slack-webhook",
        ("hooks.slack.com/",),
        r"hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9_/+-]{15,})",
    ),
    Family(
        "discord-webhook",
        ("/api/webhooks/",),
        r"discord(?:app)?\.com/api/webhooks/([0-9]{10,}/[A-Za-z0-9_-]{20,})",
    ),
    Family(
        "teams-webhook",
        ("webhook.office.com/", "outlook.office.com/webhook"),
        r"office\.com/webhook(?:b2)?/([A-Za-z0-9@/_-]{20,})",
    ),
    Family(
        "zapier-webhook",
        ("hooks.zapier.com/",),
        r"hooks\.zapier\.com/hooks/catch/([A-Za-z0-9/]{8,})",
    ),
    Family(
        "ifttt-webhook",
        ("maker.ifttt.com/",),
        r"maker\.ifttt\.com/trigger/\w+/with/key/([\w-]{16,})",
    ),
    Family(
        "url-password",
        (),
        r"[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s/?#:@\"'<>\[]{0,256}:"
        r"((?:[^\s/?#@\"'<>\[{$*][^\s/?#\"'<>]*|"
        # a slash belongs to the password when what stands before it is no port
        r"[^\s/?#@\"'<>\[{$*]*[^\s/?#@\"'<>\[{$*0-9][^\s@\"'<>]*))@",
    ),
)
