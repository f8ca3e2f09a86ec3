"""Made-up credentials of every family, put together at run time.

The tree itself must hold nothing that a scanner takes for a credential: prefixes are written with
a "|" inside, and what follows is drawn from a seeded generator. In a shape, `{a36}` stands for 36
signs of alphabet `a`.
"""

import random  # noqa: TID251  # seeded: the same made-up secret for the same seed
import string

_ALPHABETS = {
    "a": string.ascii_letters + string.digits,
    "w": string.ascii_letters + string.digits + "_-",
    "h": "0123456789abcdef",
    "H": string.ascii_uppercase + string.digits,
    "l": string.ascii_lowercase + string.digits,
    "d": string.digits,
    "b": string.ascii_uppercase + "234567",
}

SHAPES = {
    "anthropic": "sk-|ant-api03-{w80}AA",
    "openai-project": "sk-|proj-{w80}",
    "openrouter": "sk-|or-v1-{h64}",
    "langfuse": "sk-|lf-{u}",
    "langsmith": "lsv2|_pt_{h32}_{h10}",
    "openai": "sk|-{a48}",
    "google-api": "AI|za{w35}",
    "google-auth-key": "AQ|.Ab8{w46}",
    "huggingface": "hf|_{a34}",
    "groq": "gs|k_{a52}",
    "perplexity": "pp|lx-{a48}",
    "xai": "xa|i-{a80}",
    "replicate": "r8|_{a37}",
    "nvidia": "nva|pi-{w64}",
    "fireworks": "fw|_{a24}",
    "together": "tgp|_v1_{w43}",
    "cerebras": "cs|k-{l48}",
    "elevenlabs": "sk|_{h48}",
    "tavily": "tv|ly-{a32}",
    "pinecone": "pc|sk_{a60}",
    "e2b": "e2|b_{h40}",
    "jina": "ji|na_{w60}",
    "firecrawl": "fc|-{h32}",
    "wandb": "wandb|_v1_{a60}",
    "browserbase": "bb|_live_{w27}",
    "modal": "ak|-{a22}",
    "aws-access-key": "AK|IA{b16}",
    "aws-bedrock": "ABS|K{a120}=",
    "aws-bedrock-session": "bedrock-|api-key-{a120}",
    "google-oauth": "ya|29.{w80}",
    "google-client": "GOC|SPX-{w28}",
    "google-refresh": "1/|/0{w60}",
    "azure-client": "{a3}8|Q~{w34}",
    "azure-key": "{a40}JQQ|J99{a30}",
    "alibaba": "LT|AI{a20}",
    "tencent": "AK|ID{a32}",
    "volcengine": "AK|LT{a44}",
    "yandex": "AQ|VN{w36}",
    "digitalocean": "dop|_v1_{h64}",
    "cloudflare": "cf|ut_{a48}",
    "cloudflare-origin": "v1|.0-{h24}-{h146}",
    "heroku": "HR|KU-{w60}",
    "flyio": "fm|2_{a80}",
    "render": "rn|d_{a28}",
    "vercel": "vc|p_{a56}",
    "netlify": "nf|p_{a40}",
    "databricks": "da|pi{h32}",
    "planetscale": "pscale|_tkn_{w43}",
    "supabase": "sb|_secret_{w31}",
    "supabase-token": "sb|p_{h40}",
    "neon": "na|pi_{a64}",
    "xata": "xa|u_{a40}",
    "upcloud": "uc|at_{H26}",
    "scalingo": "tk-|us-{w48}",
    "openshift": "sha|256~{w43}",
    "github-token": "gh|p_{a36}",
    "github-pat": "github|_pat_{a22}_{a59}",
    "gitlab-pat": "gl|pat-{w20}",
    "gitlab": "gl|dt-{w20}",
    "gitlab-runner": "GR13|48941{w20}",
    "atlassian": "ATA|TT3{w180}",
    "bitbucket": "AT|BB{a32}",
    "trello": "AT|TA{h64}",
    "npm": "np|m_{a36}",
    "pypi": "py|pi-AgEIcHlwaS5vcmc{w120}",
    "rubygems": "ruby|gems_{h48}",
    "nuget": "oy|2{l43}",
    "cargo": "ci|o{a32}",
    "clojars": "CLO|JARS_{l60}",
    "packagist": "pack|agist_ort_{h68}",
    "docker": "dckr|_pat_{w27}",
    "sonar": "sq|p_{h40}",
    "sourcegraph": "sg|p_{h16}_{h40}",
    "circleci": "CCI|PAT_{a22}_{h40}",
    "buildkite": "bk|ua_{h40}",
    "pulumi": "pu|l-{h40}",
    "terraform": "{a14}.atl|asv1.{w67}",
    "prefect": "pn|u_{a36}",
    "octopus": "AP|I-{H30}",
    "jfrog": "AK|Cp{a69}",
    "jfrog-reference": "cmVm|dGtu{a56}",
    "infracost": "ic|o-{a32}",
    "doppler": "dp|.pt.{a43}",
    "doppler-service": "dp|.st.prd.{a43}",
    "harness": "pa|t.{w22}.{h24}.{a20}",
    "readme": "rd|me_{l70}",
    "stripe": "sk|_live_{a24}",
    "webhook-secret": "wh|sec_{a32}",
    "square": "sq0|atp-{w22}",
    "square-access": "EA|AAE{w59}",
    "braintree": "access_|token$production${l16}${h32}",
    "razorpay": "rz|p_live_{a14}",
    "flutterwave": "FLW|SECK-{h32}-X",
    "flutterwave-test": "FLW|SECK_TEST-{h12}",
    "mercadopago": "APP_|USR-{d16}-{d6}-{h32}-{d9}",
    "plaid": "access-|sandbox-{u}",
    "shippo": "shippo|_live_{h40}",
    "duffel": "duffel|_test_{w43}",
    "easypost": "EZ|AK{a54}",
    "stytch": "secret-|live-{w36}",
    "slack": "xo|xb-{d12}-{d12}-{a24}",
    "slack-app": "xa|pp-1-{H11}-{d13}-{h64}",
    "sendgrid": "S|G.{w22}.{w43}",
    "twilio": "S|K{h32}",
    "mailgun": "ke|y-{h32}",
    "mailchimp": "{h32}-u|s14",
    "brevo": "xkey|sib-{h64}-{a16}",
    "resend": "r|e_{a8}_{a24}",
    "mailersend": "ml|sn.{h64}",
    "telegram": "{d9}:A|A{w33}",
    "facebook": "EA|A{a150}",
    "twitter": "AAAAAAAAAA|AAAAAAAAAA{a80}",
    "linear": "lin|_api_{a40}",
    "notion": "nt|n_{a46}",
    "notion-secret": "sec|ret_{a43}",
    "airtable": "pa|t{a14}.{h64}",
    "hubspot": "pat|-na1-{u}",
    "figma": "fi|gd_{w40}",
    "typeform": "tf|p_{a44}_{a14}",
    "dropbox": "s|l.{w140}",
    "frameio": "fi|o-u-{w64}",
    "nylas": "nyk|_v0_{a64}",
    "contentful": "CF|PAT-{w43}",
    "shopify": "sh|pat_{h32}",
    "adobe": "p8|e-{a32}",
    "calcom": "cal|_live_{h32}",
    "grafana": "gl|sa_{a32}_{h8}",
    "sentry": "sn|trys_{a80}",
    "newrelic": "NR|AK-{H27}",
    "dynatrace": "dt0|c01.{b24}.{b64}",
    "posthog": "ph|x_{a43}",
    "postman": "PM|AK-{h24}-{h34}",
    "launchdarkly": "sd|k-{u}",
    "rootly": "root|ly_{h64}",
    "tailscale": "ts|key-auth-{a17}-{a32}",
    "mapbox": "sk|.eyJ{w60}.{w22}",
    "vault": "hv|s.{w90}",
    "onepassword-service": "ops|_eyJ{a200}",
    "onepassword": "A|3-{H6}-{H6}-{H5}-{H5}-{H5}-{H5}",
    "defined": "dn|key-{w26}-{w52}",
    "zuplo": "zp|ka_{l32}_{h8}",
    "jwt": "ey|J{w30}.eyJ{w60}.{w43}",
    "age": "AGE-SECRET|-KEY-1{H58}",
    "private-key": "-----BEGIN RSA |PRIVATE KEY-----\n{a64}\n{a64}\n-----END RSA PRIVATE KEY-----",
    "putty-key": "PuTTY-User|-Key-File-3: ssh-rsa\nPrivate-Lines: 1\n{a64}\nPrivate-MAC: {h64}",
    "private-key-der": "MII|Ev{a120}\n{a64}",
    "crypt-hash": "$2|b$12${a53}",
    "django-hash": "pbkdf2|_sha256$600000${a22}${a43}=",
    "ldap-hash": "{|SSHA}{a32}",
    "kerberos-hash": "$kr|b5tgs$23$*user$realm$test/spn*${h32}${h80}",
    "ntlm-hash": "{h32}:{h32}",
    "slack-webhook": "T{H8}/B{H8}/{a24}",
    "discord-webhook": "{d18}/{w68}",
    "teams-webhook": "{u}@{u}/IncomingWebhook/{h32}/{u}",
    "zapier-webhook": "{d7}/{l7}/",
    "ifttt-webhook": "{w22}",
    "url-password": "{a10}",
}

# Where a secret is one only because of what stands around it.
FRAMES = {
    "ntlm-hash": "admin:500:{}:::",
    "slack-webhook": "https://hooks.slack.com/services/{}",
    "discord-webhook": "https://discord.com/api/webhooks/{}",
    "teams-webhook": "https://acme.webhook.office.com/webhookb2/{}",
    "zapier-webhook": "https://hooks.zapier.com/hooks/catch/{}",
    "ifttt-webhook": "https://maker.ifttt.com/trigger/door/with/key/{}",
    "url-password": "postgres://app:{}@db.internal:5432/main",
    "cookie": "Cookie: {}",
    "authorization": "Authorization: Basic {}",
    "bearer": "we send a bearer {} along",
    "digest-response": 'Digest username="a", response="{}"',
    "cli-flag": "tool --registry-password {} push",
    "spoken": "the password for staging is {}",
    "xml-tag": "<dbPassword>{}</dbPassword>",
    "xml-attribute": '<add name="SmtpPassword" value="{}"/>',
    "curl-user": "curl -u robot:{} -o page",
    "client-password": "mysql -u root -p{} shop",
    "connection-string": "Server=db;Uid=app;Pwd={};",
    "connection-head": "Pwd={};Server=db",
    "dsn": "host=db user=app password={}",
    "netrc": "machine git.internal login robot password {}",
    "keyword": "DB_PASSWORD={}",
    "high-entropy": "here it is: {} good luck",
}
WORDED_SHAPES = {
    "cookie": "sid={h32}",
    "authorization": "{a6}{d2}{a14}=",
    "bearer": "{l6}{d3}{l5}",
    "digest-response": "{h32}",
    "cli-flag": "{l6}{d2}",
    "spoken": "{l6}{d2}",
    "xml-tag": "{l6}{d2}",
    "xml-attribute": "{l6}{d2}",
    "curl-user": "{l6}{d2}",
    "client-password": "{l6}{d2}",
    "connection-string": "abcde",
    "connection-head": "abcde",
    "dsn": "abcde",
    "netrc": "swordfish",
    "keyword": "{l6}{d2}",
    "high-entropy": "{a12}aB3dE6{a12}",
}


def filled(shape: str, seed: object) -> str:
    """A shape with its places filled, the same for the same seed."""
    draw = random.Random(repr(seed))
    out: list[str] = []
    rest = shape.replace("|", "")
    while rest:
        start = rest.find("{")
        end = rest.find("}", start)
        spec = rest[start + 1 : end] if start >= 0 else ""
        if start < 0:
            out.append(rest)
            break
        if spec == "u":
            text = "-".join(
                "".join(draw.choices("0123456789abcdef", k=n)) for n in (8, 4, 4, 4, 12)
            )
        elif spec[:1] in _ALPHABETS and spec[1:].isdigit():
            text = "".join(draw.choices(_ALPHABETS[spec[0]], k=int(spec[1:])))
        else:
            out.append(rest[: start + 1])
            rest = rest[start + 1 :]
            continue
        out.append(rest[:start] + text)
        rest = rest[end + 1 :]
    return "".join(out)


def made(family: str, seed: int = 0) -> str:
    """One secret of a family or rule."""
    return filled({**SHAPES, **WORDED_SHAPES}[family], (family, seed))


def framed(family: str, secret: str) -> str:
    """The secret where it would stand."""
    return FRAMES.get(family, "got {} from the box").replace("{}", secret)
