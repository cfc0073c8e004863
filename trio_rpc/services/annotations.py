"""Resolving annotations: names are looked up where the annotation was written.

The scopes are the module, the class, and the enclosing functions. A function's local names are
known only while its frame is running, so the stack is searched for that frame. This happens when a
method is marked, which is in the body of its class, and again when a name is looked up.
"""

from __future__ import annotations

import ast
import inspect
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from inspect import Parameter
from typing import Any, Final, ForwardRef, get_type_hints

from trio_rpc.services.aliases import (
    class_of,
    evaluate_aliases,
    substitute,
    type_arguments,
    written_in,
)
from trio_rpc.util.text import one_line

__all__ = [
    "Annotations",
    "Names",
    "class_annotations",
    "is_unresolved",
    "remember_names",
    "why_missing",
]

REMEMBERED: Final = "__trio_rpc_names__"
LOCALS: Final = ".<locals>."


class Names:
    """The names that an annotation may use: those of inner scopes, before those of the module.

    Args:
        module: the names of the module.
        nearby: the names of inner scopes.
        owner: the class in which the annotation is.
        variables: the type variables that this class, or the function itself, declares in brackets
            (``class Node[T]``). They are not names of any inner class.
    """

    def __init__(
        self,
        module: Mapping[str, Any],
        nearby: Mapping[str, Any],
        owner: Any = None,
        variables: Mapping[str, Any] = types.MappingProxyType({}),
    ) -> None:
        self.owner = owner
        self._module = dict(module)
        self._nearby = dict(nearby)
        self._variables = variables

    def within(self, module: Mapping[str, Any], owner: type) -> Names:
        """Return the names that annotations in the body of a class may use."""
        return Names(module, {**self._nearby, **_names_of(owner)}, owner, _variables_of(owner))

    def resolve(self, name: str, annotation: Any) -> Any:
        """Return the resolved annotation of ``name``. Raises NameError for an unknown name."""
        if annotation is None:
            return None
        if isinstance(annotation, str):  # so that Final, InitVar and ClassVar are allowed
            annotation = ForwardRef(annotation, is_argument=False, is_class=True)
        holder = types.SimpleNamespace(__annotations__={name: annotation})
        nearby = {**self._nearby, **self._variables}
        return get_type_hints(holder, self._module, nearby, include_extras=True)[name]


class Annotations:
    """Resolves annotations one at a time, so that an unused one may be unresolvable."""

    def __init__(
        self,
        function: Callable[..., Any],
        like: Callable[..., Any] | None,
        owner: Any,
        signature: inspect.Signature | None = None,
        interface: Any = None,
    ) -> None:
        self._sources = [written_in(source) for source in (function, like) if source is not None]
        self._owner = owner
        self._generic = [one for one in (owner, interface) if one is not None]
        self._signature = signature

    def get(self, name: str, default: Any = Any) -> Any:
        """Return the annotation of a parameter or of "return", or ``default`` without one."""
        source, annotation = self._find(name)
        if source is None:
            return default
        if annotation is None:
            return None
        try:
            meant = self.names(name).resolve(name, annotation)
            evaluate_aliases(meant)
        except Exception as exc:
            raise _complaint(exc, source, annotation, name) from exc
        return substitute(meant, self._arguments(source))

    def _arguments(self, source: Any) -> dict[Any, Any]:
        """Return the type arguments of the class that defines a function."""
        for one in self._generic:
            for base, arguments in type_arguments(one).items():
                if arguments and _defines(base, source):
                    return arguments
        return {}

    def _variables(self, source: Any) -> dict[str, Any]:
        """Return the type variables that a function, or the class that defines it, declares."""
        bases = (base for one in self._generic for base in getattr(class_of(one), "__mro__", ()))
        generic = (base for base in bases if vars(base).get("__type_params__"))
        definer = next((base for base in generic if _defines(base, source)), None)
        return _variables_of(definer) | _variables_of(source)

    def names(self, name: str) -> Names:
        """Return the names that the annotation of ``name`` may use."""
        source, _ = self._find(name)
        if source is None:
            return Names({}, {}, self._owner)
        nearby = {
            **_local_names(source),
            **getattr(source, REMEMBERED, {}),
            **_closure(source),
            **_names_of(self._owner),
        }
        module = getattr(source, "__globals__", {})
        return Names(module, nearby, self._owner, self._variables(source))

    def _find(self, name: str) -> tuple[Any, Any]:
        for source in self._sources:
            annotations = getattr(source, "__annotations__", None)  # a mock has any object
            if not isinstance(annotations, dict):
                continue
            annotation = annotations.get(name, Parameter.empty)
            if annotation is not Parameter.empty:
                return source, annotation
        # A wrapper may declare its parameters with __signature__.
        if self._signature is not None:
            parameter = self._signature.parameters.get(name)
            returned = self._signature.return_annotation if name == "return" else Parameter.empty
            annotation = returned if parameter is None else parameter.annotation
            if annotation is not Parameter.empty:
                return self._sources[0], annotation
        return None, None


def _defines(cls: Any, function: Any) -> bool:
    """Return whether a function is written in the body of a class, perhaps inside a wrapper."""
    return any(written_in(own) is function for own in vars(cls).values())


def _variables_of(definer: Any) -> dict[str, Any]:
    """Return the type variables that a class or function declares in brackets, by name.

    Text in its annotations names them, but they are in no scope that Python keeps.
    """
    declared = getattr(definer, "__type_params__", ())
    return {one.__name__: one for one in declared} if isinstance(declared, tuple) else {}


def _complaint(exc: Exception, source: Any, annotation: Any, name: str) -> TypeError:
    """Return the error for an annotation of ``name`` that could not be evaluated."""
    shown = annotation if isinstance(annotation, str) else repr(annotation)
    function = getattr(source, "__qualname__", "?")
    if isinstance(exc, NameError):
        missing = exc.name or str(exc)
        return TypeError(
            f"{function}: {missing!r} in the annotation {shown!r}"
            f" of {name!r} cannot be resolved at run time: {why_missing(source, missing)}"
        )
    if isinstance(exc, AttributeError):
        return TypeError(
            f"{function}: the annotation {shown!r} of {name!r} cannot be resolved at run time:"
            f" {exc}"
        )
    why = "it is a tuple of types: write tuple[...]" if _is_tuple(shown) else one_line(str(exc))
    return TypeError(f"{function}: the annotation {shown!r} of {name!r} is not valid: {why}")


def _is_tuple(text: str) -> bool:
    try:
        return isinstance(ast.parse(text, mode="eval").body, ast.Tuple)
    except SyntaxError:
        return False


def is_unresolved(exc: BaseException | None) -> bool:
    """Return whether an error is about a name that only a type checker may know."""
    while exc is not None and not isinstance(exc, (NameError, AttributeError)):
        exc = exc.__cause__
    return exc is not None


def class_annotations(cls: type) -> dict[str, Callable[[], Any]]:
    """Map the names annotated in the body of ``cls`` to the resolver of each annotation."""
    module = vars(sys.modules.get(cls.__module__, types.ModuleType("")))
    names = Names(module, _names_of(cls), cls, _variables_of(cls))

    def resolver(name: str, annotation: Any) -> Callable[[], Any]:
        return lambda: names.resolve(name, annotation)

    return {
        name: resolver(name, annotation)
        for name, annotation in inspect.get_annotations(cls).items()
    }


def remember_names(function: Callable[..., Any]) -> None:
    """Keep the local names that a method's annotations may use. Call this where it is defined.

    Only names used by annotations are kept, and names used in turn by local classes of that
    function.
    """
    if found := _local_names(function):
        vars(function)[REMEMBERED] = found


def _local_names(function: Any) -> dict[str, Any]:
    scopes = getattr(function, "__qualname__", "").split(LOCALS)[:-1]
    wanted = set(_names_in(getattr(function, "__annotations__", {})))
    if not scopes or not wanted:
        return {}
    outside = {LOCALS.join(scopes[: index + 1]) for index in range(len(scopes))}
    found: dict[str, Any] = {}
    frame: types.FrameType | None = sys._getframe(1)  # noqa: SLF001 - as inspect.currentframe does
    while frame is not None:
        code = frame.f_code
        if code.co_qualname in outside and frame.f_globals is function.__globals__:
            names = frame.f_locals
            waiting = [*wanted]
            while waiting:
                name = waiting.pop()
                if name in names and name not in found:
                    found[name] = names[name]
                    waiting += _names_in(getattr(names[name], "__annotations__", {}))
        frame = frame.f_back
    return found


def _names_in(annotations: Any) -> Iterator[str]:
    for annotation in annotations.values() if isinstance(annotations, dict) else ():
        if isinstance(annotation, str):
            try:
                tree = ast.parse(annotation, mode="eval")
            except SyntaxError:
                continue
            for node in ast.walk(tree):
                if isinstance(node, ast.Name):
                    yield node.id
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield from _names_in({"": node.value})


def why_missing(source: Any, name: str) -> str:
    """Return why a name was not found, and what to do about it."""
    module = getattr(source, "__module__", "?")
    if _is_for_type_checkers(module, name):
        return f"{module} imports it only under `if TYPE_CHECKING`: import it outside of that block"
    scopes = getattr(source, "__qualname__", "").split(LOCALS)[:-1]
    if scopes:
        function = scopes[-1]
        return (
            f"{module} does not define it, and the function {function}() had no local variable"
            f" {name!r} when the method was marked: define it before the class, or in the module"
        )
    return f"neither {module} nor the class defines it: define or import it there"


def _is_for_type_checkers(module: str, name: str) -> bool:
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except Exception:  # noqa: BLE001 - without its source, only the error text is less exact
        return False
    return any(
        name in (alias.asname, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        if isinstance(statement, (ast.Import, ast.ImportFrom))
        for alias in statement.names
    )


def _names_of(owner: Any) -> dict[str, Any]:
    """Return the names in a class body that annotations may use, which excludes methods."""
    if owner is None:
        return {}
    return {
        name: value
        for base in reversed(class_of(owner).__mro__)
        for name, value in {**vars(base), base.__name__: base}.items()
        if not inspect.isroutine(value)
    }


def _closure(function: Callable[..., Any]) -> dict[str, Any]:
    if not inspect.isfunction(function):
        return {}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    # A cell is empty until its variable is assigned, which may happen later.
    return {name: cell.cell_contents for name, cell in cells if _is_filled(cell)}


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - there is no other way to ask
    except ValueError:
        return False
    return True
