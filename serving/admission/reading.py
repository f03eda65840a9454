r"""How the API server reads a pod: CEL variables, each resting on the ones before it, from an object to the engines it runs.

A container's words are joined by a separator, so that one regular expression finds a flag with its value whatever the order,
the spelling and the rest of the line. What cannot be read for certain is called unreadable, and a policy that needs it
refuses it. Patterns are RE2's; `\x1f` in them is the separator.
"""

from __future__ import annotations

from serving import catalogue
from serving.admission.cel import Variable, literal, pattern, quoted
from serving.admission.matching import CONTAINERS_OF_POD, GPU_PREFIX, POD_TEMPLATES, VLLM, WORDS_OF_CONTAINER

_NO_ENGINE = (
    "the command is not vllm serve with words that stand as they are: write it, the model and the flags as command and args, "
    "without a script"
)


def _names(flag: str) -> tuple[str, ...]:
    """Return a flag with its aliases."""
    return next(tuple(row.split()) for row in catalogue.serve_flags().value if row.split()[0] == flag)


# Flags that a policy depends on.
MODEL = _names("--model")
REVISION = _names("--revision")
TENSOR_PARALLEL_SIZE = _names("--tensor-parallel-size")
PIPELINE_PARALLEL_SIZE = _names("--pipeline-parallel-size")
DATA_PARALLEL_SIZE = _names("--data-parallel-size")
NODES = _names("--nnodes")
GPU_MEMORY_UTILIZATION = _names("--gpu-memory-utilization")
_CONFIG = _names("--config")
_JUDGED = (
    *MODEL,
    *REVISION,
    *TENSOR_PARALLEL_SIZE,
    *PIPELINE_PARALLEL_SIZE,
    *DATA_PARALLEL_SIZE,
    *NODES,
    *GPU_MEMORY_UTILIZATION,
    *_CONFIG,
)

# Flags that no policy depends on and whose value comes from a Secret, a node's address or a group's index.
_FREE = ("--api-key", "--host", "--port", "--master-addr", "--master-port", "--node-rank", "-r", *NODES)


def flag_pattern(names: tuple[str, ...]) -> str:
    """Return the pattern of a flag up to its value, which is in the same word or in the next one."""
    return rf"\x1f(?:{'|'.join(map(_spelled, names))})[=\x1f]"


def _spelled(name: str) -> str:
    """Return the pattern of a flag's name: vLLM takes underscores for hyphens."""
    return f"--{name[2:].replace('-', '[-_]')}" if name.startswith("--") else name


def _values(names: tuple[str, ...]) -> str:
    whole, before = pattern(flag_pattern(names) + r"[^\x1f]*"), pattern("^" + flag_pattern(names))
    return f"m.run.findAll({whole}).map(f, f.substring(f.find({before}).size()))"


def last_value(names: tuple[str, ...], default: str = "") -> str:
    """Return the CEL expression of a flag's value on the line `m.run`: of several the last, as vLLM takes it."""
    return f"[[{quoted(default)}] + {_values(names)}].map(v, v[v.size() - 1])[0]"


# In characters. Reading takes the API server longer than in proportion, and no command of vLLM comes near.
_LONGEST_LINE = 10_000

_SHELL = r"(?:[^\x1f]*/)?(?:ba|da|a|k|z)?sh"
_SHELL_CALL = pattern(rf"(?s)\x1f{_SHELL}(?:\x1f[-+][^\x1f]*|\x1fpipefail)*\x1f-[A-Za-z]*c\x1f[^\x1f]*")

# What a shell hands on as it stands: plain words, and quotes without anything to expand inside.
_SHELL_WORD = r"(?:[A-Za-z0-9_@%+=:,./-]|\x27[^\x27]*\x27|\x22[^\x22$`\\]*\x22)+"
_PLAIN_SCRIPT = pattern(rf"^(?:{_SHELL_WORD}[ \t]+)*{_SHELL_WORD}$")

# What may stand before the engine without changing its flags: wrappers, their flags and numbers, variables.
_WRAPPERS = ("exec", "env", "nohup", "nice", "tini", "dumb-init", "numactl", "python[0-9.]*")
_WRAPPER = rf"(?:(?:[^\x1f]*/)?(?:{'|'.join(_WRAPPERS)})|-[^\x1f]*|[0-9]+|[A-Za-z_][A-Za-z0-9_]*=[^\x1f]*)"

_SERVE = r"(?:(?:[^\x1f]*/)?vllm|-m\x1fvllm[.]entrypoints[.]cli[.]main)\x1fserve"
_API_SERVER = r"-m\x1fvllm[.]entrypoints[.](?:(?:openai[.])?api_server|launchers[.]api_server[.]entry)"
_RUN = rf"\x1f(?:{_SERVE}|{_API_SERVER})\x1f.*"
_FIRST_RUN = pattern(rf"(?s)^(?:\x1f{_WRAPPER})*{_RUN}")
_POSITIONAL = pattern(rf"^\x1f{_SERVE}\x1f[^-\x1f][^\x1f]*")

# vLLM in a command that is not one of these forms.
_MENTION = pattern(r"(?s)(?:^|[^A-Za-z0-9_-])vllm(?:[\x22\x27\s\x1f]+(?:serve|[$])|[./]entrypoints)")

# A word that begins with a variable whose value is not here: it may be a flag, unless it stands where a value must.
_REFERENCE = pattern(r"\x1f[$][(]")

READING = (
    Variable("templates", POD_TEMPLATES),
    Variable("pods", "variables.templates.map(t, t.spec)"),
    Variable(
        "groups",
        f"""variables.pods.map(p, (
  request.?subResource.orValue("") == "ephemeralcontainers" ? p.?ephemeralContainers.orValue([]) :
  {CONTAINERS_OF_POD}
).map(c, {{"pod": p, "container": c}})) + [[], []]""",
    ),
    Variable("containers", "variables.groups[0] + variables.groups[1]"),
    # Kubernetes puts variables into the words, of several with one name the last. One whose value is not here stays `$(NAME)`.
    # The separator in a word becomes a character that no known name has.
    Variable(
        "commands",
        rf"""variables.containers.map(m, {{"pod": m.pod, "container": m.container, "words": dyn([m.container].map(c,
  c.?image.orValue("").split("@")[0].contains("{VLLM}") && c.?command.orValue([]).size() == 0 ?
  ["vllm", "serve"] + c.?args.orValue([]) : {WORDS_OF_CONTAINER})[0]
  .map(w, w.replace("\u001f", "\ufffd").replace("$(", "\u001f$(").split("\u001f").map(p,
    !(p.startsWith("$(") && p.contains(")")) ? p :
    [[p] + m.container.?env.orValue([]).filter(e, e.name == p.substring(2, p.indexOf(")"))).map(e,
      has(e.valueFrom) || e.?value.orValue("").contains("$(") ? p :
      e.?value.orValue("").replace("\u001f", "\ufffd") + p.substring(p.indexOf(")") + 1)
    )].map(found, found[found.size() - 1])[0]
  ).join(""))
)}})""",
    ),
    Variable(
        "lines",
        rf"""variables.commands.map(m, {{
  "pod": m.pod, "container": m.container, "line": dyn("\u001f" + m.words.join("\u001f") + "\u001f")
}}).map(m, {{
  "pod": m.pod, "container": m.container, "line": m.line, "shell": dyn(m.line.find({_SHELL_CALL}))
}}).map(m, {{
  "pod": m.pod, "container": m.container, "line": m.line, "shell": m.shell,
  "script": dyn(m.shell.substring(m.shell.lastIndexOf("\u001f") + 1).replace("\\\n", " ").trim())
}})""",
    ),
    # From the engine on: `run` is empty where there is none, or what stands before it may change it.
    Variable(
        "runs",
        rf"""variables.lines.map(m, {{"pod": m.pod, "container": m.container, "line": m.line, "run": dyn((
  m.line.size() > {_LONGEST_LINE} ? "" :
  m.shell == "" ? m.line :
  !m.script.matches({_PLAIN_SCRIPT}) ? "" :
  m.line.replace(m.shell, "\u001f" + m.script.findAll({pattern(_SHELL_WORD)}).map(w,
    w.contains("'") ? w.replace("'", "") : w.replace("\"", "")).join("\u001f"))
).find({_FIRST_RUN}).find({pattern(f"(?s){_RUN}")}))}})""",
    ),
    Variable("judged", literal(_JUDGED)),
    Variable(
        "engines",
        rf"""variables.runs.filter(m,
  m.run != "" || m.line.matches({_MENTION}) ||
  m.container.?resources.?limits.orValue({{}}).exists(r, r.startsWith("{GPU_PREFIX}"))
).map(m, {{
  "pod": m.pod, "container": m.container, "line": m.line, "run": m.run,
  "models": dyn(m.run.findAll({_POSITIONAL}).map(f, f.substring(f.lastIndexOf("\u001f") + 1)) + {_values(MODEL)}),
  "abbreviated": dyn(m.run.split("\u001f").filter(w, w.startsWith("-") && !(w in ["-", "--"]))
    .map(w, w.split("=")[0].replace("_", "-")).filter(w, variables.judged.exists(f, f.startsWith(w) && f != w)).join(", "))
}}).map(m, {{
  "pod": m.pod, "container": m.container, "line": m.line, "run": m.run, "model": dyn(m.models.join(" and ")),
  "unreadable": dyn([
    m.run == "" ? {quoted(_NO_ENGINE)} :
    m.models.size() > 1 ? "two models are named, " + m.models.join(" and ") :
    m.abbreviated != "" ? "a flag is abbreviated (" + m.abbreviated + "), which nobody can look up here" :
    m.run.matches({pattern(flag_pattern(_CONFIG))}) ? "flags are in a config file, which nobody sees here" :
    m.run.findAll({_REFERENCE}).size() != m.run.findAll({pattern(flag_pattern(_FREE) + "[$][(]")}).size() ?
      "words of the command come from variables whose values nobody sees here" : ""
  ].map(why, why == "" ? "" : "cannot be judged: " + why)[0])
}})""",
    ),
)
"""From `pods` to `engines`: what runs vLLM or asks for GPUs, as {pod, container, line, run, model, unreadable}."""
