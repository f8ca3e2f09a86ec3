"""Finds every place where a proof type is made or altered, however it is spelled."""

import ast
from collections.abc import Iterator, Mapping

from tests.architecture.source_tree import aliases, dotted

# Calls that may be handed a proof's class without making one of it.
_ASKING = {
    "builtins.isinstance",
    "builtins.issubclass",
    "typing.get_type_hints",
    "typing.assert_type",
}
_NAMING = {"typing.cast", "builtins.getattr"}  # a class may be named to these by its text
_COPIERS = {"dataclasses.replace", "copy.replace"}


def proof_fields(tree: ast.Module, proofs: frozenset[str]) -> dict[str, frozenset[str]]:
    """The field names of each proof class that this module defines."""
    return {
        node.name: frozenset(
            item.target.id
            for item in node.body
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        )
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name in proofs
    }


class ProofUses:
    """The forged proofs of one module: `line name` for each making, by any road."""

    def __init__(self, tree: ast.Module, fields: Mapping[str, frozenset[str]]) -> None:
        self._tree = tree
        self._fields = fields
        self._known = aliases(tree)
        self._types = _annotated(tree)

    def found(self) -> Iterator[tuple[int, str]]:
        """Every making of a proof, with its line; a replace that fits several names them all."""
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Call):
                yield from ((node.lineno, proof) for proof in self._made_by(node))
            elif isinstance(node, ast.Assign | ast.NamedExpr):
                proof = self._proof(node.value)
                if proof is not None:
                    yield node.lineno, proof
            elif isinstance(node, ast.ClassDef):
                bases = [self._proof(base) for base in node.bases]
                yield from ((node.lineno, proof) for proof in bases if proof is not None)

    def _proof(self, node: ast.AST | None) -> str | None:
        """The proof that this expression names: `X`, `verdict.X` or the text `"X"`."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            name: str | None = node.value
        else:
            name = None if node is None else dotted(node, self._known)
        last = (name or "").rpartition(".")[2]
        return last if last in self._fields else None

    def _made_by(self, call: ast.Call) -> Iterator[str]:
        called = dotted(call.func, self._known) or ""
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        made = self._proof(call.func)
        if made is not None:
            yield made
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        if owner is not None and self._proof(owner) is not None:
            yield str(
                self._proof(owner)
            )  # AuthorizedCall.__new__(...), AuthorizedCall.anything(...)
        if called in _COPIERS or called.endswith(".__replace__"):
            yield from self._replaced(call)
        elif called == "builtins.object.__setattr__":
            if not (given and isinstance(given[0], ast.Name) and given[0].id == "self"):
                yield called
        elif called == "builtins.object.__new__" and not any(map(self._proof, given)):
            yield called
        elif called not in _ASKING:
            yield from self._handed(given, texts=called in _NAMING)

    def _handed(self, given: list[ast.expr], *, texts: bool) -> Iterator[str]:
        """Proofs whose class is handed on: partial(X), cast(X, ...), cast("X", ...), factory=X."""
        for value in given:
            proof = self._proof(value) if texts or not isinstance(value, ast.Constant) else None
            if proof is not None:
                yield proof

    def _replaced(self, call: ast.Call) -> Iterator[str]:
        """The proofs this replace may alter: its words fit, and its subject may be one."""
        if isinstance(call.func, ast.Attribute) and call.func.attr == "__replace__":
            subject: ast.expr | None = call.func.value
        else:
            subject = call.args[0] if call.args else None
        stated = self._types.get(ast.unparse(subject)) if subject is not None else None
        if stated is not None and not any(proof in stated for proof in self._fields):
            return
        words = {keyword.arg for keyword in call.keywords}
        for proof, fields in self._fields.items():
            if None in words or words <= fields:
                yield proof


def _annotated(tree: ast.Module) -> dict[str, str]:
    """What the module states of its names' types: `x` and `self.x` to the text of the annotation.

    A name that is stated twice, differently, counts as unknown.
    """
    stated: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation is not None:
            stated.setdefault(node.arg, set()).add(ast.unparse(node.annotation))
        elif isinstance(node, ast.AnnAssign):
            stated.setdefault(ast.unparse(node.target), set()).add(ast.unparse(node.annotation))
    first = {name: " | ".join(sorted(texts)) for name, texts in stated.items()}
    for _ in range(2):  # self.x = x, then y = self.x
        for target, value in _assignments(tree):
            if value in first and target not in stated:
                first.setdefault(target, first[value])
    return first


def _assignments(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = zip(target.elts, node.value.elts, strict=False)
                yield from ((ast.unparse(left), ast.unparse(right)) for left, right in pairs)
            else:
                yield ast.unparse(target), ast.unparse(node.value)
