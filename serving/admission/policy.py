"""The rules that the API server itself judges: for each, CEL over what `reading` finds in a pod, in the rule's own words."""

from __future__ import annotations

from dataclasses import dataclass

from serving.admission.bf16 import bf16_one_node
from serving.admission.cel import Variable, literal, pattern, quoted, refusals
from serving.admission.reading import READING, REVISION, last_value
from serving.facts import IMAGE_DIGEST, MODEL_REVISION
from serving.rules import NODE_DISK, RULES
from serving.rules.pins import CHECKED_TYPES

_DEV_MODE = "VLLM_SERVER_DEV_MODE"


@dataclass(frozen=True)
class AdmissionPolicy:
    """One rule in CEL: it holds where the last of the variables, `refusals`, is empty; otherwise it is the message."""

    rule: str
    title: str
    remedy: str
    variables: tuple[Variable, ...]

    @property
    def expression(self) -> str:
        """What must hold."""
        return "variables.refusals.size() == 0"

    @property
    def message_expression(self) -> str:
        """What the client is told: the rule, each container with the reason, what to do. One line, or it is not told."""
        told = 'variables.refusals.join("; ").replace("\\n", " ")'
        return f"{quoted(f'{self.rule}: ')} + {told} + {quoted(f'. To do: {self.remedy}.')}"

    @property
    def message(self) -> str:
        """What the client is told where the reason is too long for the API server."""
        return f"{self.rule}: this does not hold: {self.title}. To do: {self.remedy}."


def policies() -> tuple[AdmissionPolicy, ...]:
    """Return the policies, the same for every stack."""
    judged = {
        "image-digest": (_image_digest(),),
        "model-revision": (_model_revision(),),
        "bf16-one-node": bf16_one_node(),
        "dev-mode": (_dev_mode(),),
        "host-path": (_host_path(),),
    }
    rules = {rule.id: rule for rule in RULES}
    return tuple(
        AdmissionPolicy(id_, rules[id_].title, rules[id_].remedy, (*READING, *variables))
        for id_, variables in judged.items()
    )


def _image_digest() -> Variable:
    return refusals(
        f"""variables.engines.map(m, {{"container": m.container, "image": dyn(m.container.?image.orValue(""))
}}).map(m, {{"container": m.container, "why": dyn(
  m.image.matches({pattern(IMAGE_DIGEST.pattern)}) ? "" :
  "image '" + m.image + "' is not pinned by digest (repository@sha256: and 64 hexadecimal digits)"
)}})"""
    )


def _model_revision() -> Variable:
    return refusals(
        f"""variables.engines.map(m, {{
  "container": m.container, "unreadable": m.unreadable, "model": m.model, "revision": dyn({last_value(REVISION)})
}}).map(m, {{"container": m.container, "why": dyn(
  m.unreadable != "" ? m.unreadable :
  m.revision.matches({pattern(MODEL_REVISION.pattern)}) ? "" :
  (m.revision == "" ? "no revision is given" : "revision '" + m.revision + "' is not a commit") +
  " for " + m.model + "; expected 40 hexadecimal digits"
)}})"""
    )


def _dev_mode() -> Variable:
    """Judge the variable of the container, and its name anywhere in the command: a shell or `env` may set it there."""
    name = quoted(_DEV_MODE)
    return refusals(
        f"""variables.engines.map(m, {{
  "container": m.container, "line": m.line,
  "values": dyn(m.container.?env.orValue([]).filter(e, e.name == {name}).map(e,
    has(e.valueFrom) ? "(a value from elsewhere)" : e.?value.orValue(""))),
  "elsewhere": dyn(m.container.?envFrom.orValue([]).exists(e, {name}.startsWith(e.?prefix.orValue(""))))
}}).map(m, {{
  "container": m.container, "value": dyn(
    m.line.contains({name}) ? "(a value in the command)" :
    m.values.size() > 0 ? m.values[m.values.size() - 1] :
    m.elsewhere ? "(a value from elsewhere)" : "0")
}}).map(m, {{"container": m.container, "why": dyn(
  m.value in ["", "0"] ? "" :
  {quoted(f"{_DEV_MODE}=")} + m.value + " opens /sleep, /pause and other administration to every client"
)}})"""
    )


def _host_path() -> Variable:
    """Judge the volumes of every pod that has an engine, whichever of its containers mounts them."""
    return Variable(
        "refusals",
        f"""variables.pods.filter(p, variables.engines.exists(m, m.pod == p)).map(p,
  p.?volumes.orValue([]).filter(v, has(v.hostPath)).map(v, v.hostPath).map(h,
    !(h.path + "/").startsWith({quoted(f"{NODE_DISK}/")}) ?
      "hostPath " + h.path + {quoted(f" is not on the node's NVMe array, {NODE_DISK}")} :
    !(h.?type.orValue("") in {literal(list(CHECKED_TYPES))}) ?
      "hostPath " + h.path + " has " + (h.?type.orValue("") == "" ? "no type" : "type " + h.type) +
      ": where the array is not mounted it fills the root volume" : ""
  ).filter(why, why != "").join("; ")
).filter(why, why != "")""",
    )
