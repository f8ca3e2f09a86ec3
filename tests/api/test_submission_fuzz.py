"""Generated submissions, good and nearly good, never bring the server to a failure."""

import json
from collections.abc import Callable

import httpx2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.support.api_matrix import MEDIA_TYPE

Value = object
ANSWERS = {202, 400, 403, 413, 422}

texts = st.text(st.characters(), max_size=60)
scalars = (
    st.none() | st.booleans() | st.integers() | st.integers(-(2**54), 2**54) | st.floats() | texts
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts, values, max_size=3)
tool_names = st.sampled_from(["calculator", "read_file", "write_file", "list_files", "nope"])
names = tool_names | st.from_regex(r"^[a-z0-9_.-]{1,64}$")
schemas = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["object", "string", "array", "number", "x"]) | values,
        "properties": st.dictionaries(texts, objects, max_size=2),
        "pattern": texts | st.sampled_from(["(a+)+$", "(", "[", "^a{1,99999}$"]),
        "items": values,
        "enum": st.lists(values, max_size=3),
        "$ref": texts | st.sampled_from(["#", "#/a", "http://127.0.0.1:1/x"]),
        "maximum": scalars,
        "additionalProperties": st.booleans() | objects,
    },
)
fields: dict[str, SearchStrategy[Value]] = {
    "task": texts,
    "instructions": texts,
    "data": st.lists(
        st.fixed_dictionaries({"content": texts}, optional={"source": texts}), max_size=3
    ),
    "agent": st.just("assistant") | names,
    "model": st.just("offline") | texts,
    "tools": st.lists(names, max_size=5),
    "capabilities": st.fixed_dictionaries({"tools": st.lists(names, max_size=5)}),
    "budget": st.dictionaries(
        st.sampled_from(["max_steps", "max_tokens", "max_cost_micros", "max_wall_seconds"]),
        st.integers(-1, 10**10),
    ),
    "output_schema": schemas | objects,
    "metadata": objects,
}
well_shaped = st.fixed_dictionaries({}, optional=fields)


@st.composite
def _bent(draw: Callable[[SearchStrategy[Value]], Value]) -> dict[str, Value]:
    """A well-shaped submission with one field replaced by anything."""
    body = {"task": "hello"}  # no sum: the generator and a calculator would both use `ast`
    name = draw(st.sampled_from(sorted(fields)) | texts)
    return {**body, str(name): draw(values)}


submissions = well_shaped | _bent()


@settings(
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(submissions)
def test_a_generated_submission_is_admitted_or_refused_but_never_a_failure(
    acme: httpx2.Client, body: dict[str, Value]
) -> None:
    response = acme.post(
        "/v1/runs",
        content=json.dumps(body).encode("utf-8", "surrogatepass"),
        headers={"Content-Type": "application/json"},
    )
    assert response.status_code in ANSWERS, response.text
    if response.status_code != 202:
        assert response.headers["content-type"] == MEDIA_TYPE


@settings(
    max_examples=100,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.binary(max_size=200))
def test_generated_bytes_are_never_a_failure(acme: httpx2.Client, body: bytes) -> None:
    response = acme.post("/v1/runs", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in ANSWERS
