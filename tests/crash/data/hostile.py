"""Hostile bytes: pickles that run what they name, and values that want more memory than there is.

Each pickle is armed: whoever loads it makes the file CANARY, where its modules are installed and it is not stopped before.
"""

from __future__ import annotations

import pickle
import struct

PROTO = b"\x80\x04"
# Those that do it on any machine, one for each way to call something.
ARMED = (
    "REDUCE of posix.system",
    "GLOBAL and REDUCE",
    "INST",
    "OBJ",
    "subprocess.Popen",
    "BUILD and __setstate__",
    "builtins.exec",
    "a dotted name",
    "functools.partial",
    "a pickle in a pickle",
    "behind a broken end",
)


def text(value: str) -> bytes:
    """A str on the stack."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def named(module: str, name: str) -> bytes:
    """A global, found the new way."""
    return text(module) + text(name) + b"\x93"


def called(module: str, name: str, *arguments: str) -> bytes:
    """A call by REDUCE."""
    return PROTO + named(module, name) + b"(" + b"".join(map(text, arguments)) + b"tR."


def old_global(module: str, name: str) -> bytes:
    """A global, found the old way."""
    return f"c{module}\n{name}\n".encode()


def pickles(canary: str) -> dict[str, bytes]:
    """Pickles by name."""
    shell = f"touch {canary}"
    python = f"open({canary!r}, 'w').close()"
    found = {
        # ---- each way that pickle has to call something
        "REDUCE of os.system": called("os", "system", shell),
        "REDUCE of posix.system": called("posix", "system", shell),
        "GLOBAL and REDUCE": old_global("os", "system") + b"(" + text(shell) + b"tR.",
        "INST": b"(" + b"S'" + shell.encode() + b"'\nios\nsystem\n.",
        "OBJ": b"(" + old_global("os", "system") + b"S'" + shell.encode() + b"'\no.",
        "NEWOBJ": PROTO + named("subprocess", "Popen") + b"(" + b"(" + text("touch") + text(canary) + b"l" + b"t\x81.",
        "NEWOBJ_EX": PROTO
        + named("subprocess", "Popen")
        + b")"
        + b"}"
        + text("args")
        + b"("
        + text("touch")
        + text(canary)
        + b"ls\x92.",
        "subprocess.Popen": PROTO + named("subprocess", "Popen") + b"((" + text("touch") + text(canary) + b"ltR.",
        "BUILD and __setstate__": PROTO
        + named("types", "SimpleNamespace")
        + b")R}"
        + text("__setstate__")
        + named("os", "system")
        + b"sb"
        + text(shell)
        + b"b.",
        "builtins.eval": called("builtins", "eval", python),
        "builtins.exec": called("builtins", "exec", python),
        "__builtin__ of Python 2": old_global("__builtin__", "eval") + b"(" + text(python) + b"tR.",
        "a dotted name": called("os", "path.os.system", shell),
        "getattr": PROTO
        + named("builtins", "getattr")
        + b"("
        + named("os", "path")
        + text("os")
        + b"tR0"
        + named("builtins", "exec")
        + b"("
        + text(python)
        + b"tR.",
        "operator.methodcaller": PROTO
        + named("operator", "methodcaller")
        + b"("
        + text("system")
        + text(shell)
        + b"tR("
        + named("builtins", "__import__")
        + b"("
        + text("os")
        + b"tRtR.",
        "operator.attrgetter": PROTO
        + named("operator", "attrgetter")
        + b"("
        + text("system")
        + b"tR("
        + named("builtins", "__import__")
        + b"("
        + text("os")
        + b"tRtR("
        + text(shell)
        + b"tR.",
        "functools.partial": PROTO + named("functools", "partial") + b"(" + named("os", "system") + text(shell) + b"tR)R.",
        "a pickle in a pickle": PROTO + named("pickle", "loads") + b"(" + bytes_of(called("os", "system", shell)) + b"tR.",
        "a marshalled code object": PROTO + named("marshal", "loads") + b"(" + bytes_of(b"\xe3") + b"tR.",
        "a persistent id": b"P" + canary.encode() + b"\n.",
        "a binary persistent id": PROTO + text(canary) + b"Q.",
        "EXT1": PROTO + b"\x82\x01.",
        "EXT2": PROTO + b"\x83\x01\x01.",
        "EXT4": PROTO + b"\x84\x01\x00\x00\x01.",
        "behind a broken end": called("os", "system", shell)[:-1] + b"\xff",
        "behind other data": pickle.dumps([1, 2], 2)[:-1] + b"0" + called("os", "system", shell),
        # ---- the library's own functions
        "our reconnect": PROTO
        + named("resumable.values.registry", "reconnect")
        + b"("
        + text("os:system")
        + text(shell)
        + b"tR.",
        "dill's import": called("dill._dill", "_import_module", "os.system"),
        "dill's code": PROTO + named("dill._dill", "_create_code") + b")R.",
    }
    found |= {
        f"published: {module}.{name}": called(module, name, *arguments) for module, name, *arguments in published(shell, python)
    }
    return found | bombs_of_pickle()


def published(shell: str, python: str) -> list[tuple[str, ...]]:
    """Calls that scanners of pickles were got round with."""
    return [
        ("pip", "main", "install"),
        ("pip._internal.cli.main", "main", "install"),
        ("pip._vendor.distlib.scripts", "ScriptMaker", "."),
        ("asyncio.unix_events", "_UnixSubprocessTransport._start", shell),
        ("asyncio", "create_subprocess_shell", shell),
        ("timeit", "timeit", python),
        ("timeit", "main", python),
        ("runpy", "_run_code", python),
        ("runpy", "run_path", "/dev/null"),
        ("code", "InteractiveInterpreter", ""),
        ("code", "interact", ""),
        ("bdb", "Bdb.run", python),
        ("pdb", "run", python),
        ("cProfile", "run", python),
        ("cProfile", "runctx", python),
        ("profile", "run", python),
        ("profile", "Profile.run", python),
        ("trace", "Trace.run", python),
        ("doctest", "debug_script", python),
        ("doctest", "testsource", python),
        ("pydoc", "pipepager", "", shell),
        ("pty", "spawn", "true"),
        ("os", "popen", shell),
        ("os", "execl", "/bin/true"),
        ("os", "startfile", shell),
        ("nt", "system", shell),
        ("commands", "getoutput", shell),
        ("subprocess", "getoutput", shell),
        ("subprocess", "getstatusoutput", shell),
        ("subprocess", "check_output", "true"),
        ("subprocess", "run", "true"),
        ("_posixsubprocess", "fork_exec", shell),
        ("multiprocessing.util", "spawnv_passfds", shell),
        ("webbrowser", "open", "http://localhost"),
        ("importlib", "import_module", "antigravity"),
        ("importlib.util", "spec_from_file_location", "x"),
        ("imp", "load_source", "x"),
        ("zipimport", "zipimporter", "x"),
        ("ctypes", "CDLL", "libc.so.6"),
        ("ctypes.util", "find_library", "c"),
        ("distutils.spawn", "spawn", "true"),
        ("distutils.file_util", "write_file", "x"),
        ("shutil", "rmtree", "/nonexistent"),
        ("shutil", "move", "/nonexistent", "x"),
        ("socket", "create_connection", "x"),
        ("ssl", "get_server_certificate", "x"),
        ("smtplib", "SMTP", "x"),
        ("ftplib", "FTP", "x"),
        ("http.client", "HTTPSConnection", "x"),
        ("urllib.request", "urlopen", "http://localhost"),
        ("requests.api", "get", "http://localhost"),
        ("logging.config", "_resolve", "os.system"),
        ("logging.config", "listen", "0"),
        ("lib2to3.pgen2.grammar", "Grammar.loads", "x"),
        ("lib2to3.pgen2.pgen", "ParserGenerator.make_label", python),
        ("idlelib.pyshell", "ModifiedInterpreter.runcode", python),
        ("idlelib.calltip", "get_entity", python),
        ("idlelib.debugobj", "ObjectTreeItem.SetText", python),
        ("idlelib.run", "Executive.runcode", python),
        ("idlelib.autocomplete", "AutoComplete.get_entity", python),
        ("test.support.script_helper", "assert_python_ok", "-c", python),
        ("test.support.os_helper", "unlink", "/nonexistent"),
        ("numpy.testing._private.utils", "runstring", python),
        ("numpy.f2py.crackfortran", "getlincoef", python),
        ("numpy.f2py.crackfortran", "param_eval", python),
        ("numpy.f2py.crackfortran", "_eval_length", python),
        ("numpy.f2py.crackfortran", "_eval_scalar", python),
        ("numpy.f2py.crackfortran", "myeval", python),
        ("numpy", "load", "x"),
        ("numpy.core", "multiarray._reconstruct", "x"),
        ("pandas.io.pickle", "read_pickle", "x"),
        ("pandas.core.computation.eval", "eval", python),
        ("joblib.numpy_pickle", "load", "x"),
        ("torch", "load", "x"),
        ("torch", "hub.load", "x"),
        ("torch.storage", "_load_from_bytes", "x"),
        ("torch.jit.unsupported_tensor_ops", "execWrapper", python),
        ("torch.serialization", "load", "x"),
        ("torch._inductor.codecache", "compile_file", "x"),
        ("torch.utils._config_module", "ConfigModule.load_config", "x"),
        ("torch.utils.bottleneck.__main__", "run_cprofile", python),
        ("torch.utils.bottleneck.__main__", "run_autograd_prof", python),
        ("torch.utils.collect_env", "run", shell),
        ("torch._dynamo.guards", "GuardBuilder.get", python),
        ("torch.fx.experimental.symbolic_shapes", "ShapeEnv.evaluate_guards_expression", python),
        ("torch.utils.data.datapipes.utils.decoder", "basichandlers", "x"),
        ("torch.package", "PackageImporter", "x"),
        ("tensorflow.python.lib.io", "file_io.read_file_to_string", "/etc/hostname"),
        ("keras.models", "load_model", "x"),
        ("sympy", "sympify", python),
        ("jinja2.environment", "Environment.from_string", "x"),
        ("yaml", "unsafe_load", "x"),
        ("uuid", "_popen", "true"),
        ("ensurepip", "_run_pip", "install"),
        ("venv", "create", "/nonexistent/x"),
        ("site", "addpackage", "/", "x"),
        ("linecache", "getlines", "/etc/hostname"),
        ("fileinput", "input", "/etc/hostname"),
        ("pathlib", "Path.write_text", "x"),
        ("io", "open", "/etc/hostname"),
        ("types", "CodeType", "x"),
        ("types", "FunctionType", "x"),
        ("typing", "get_type_hints", "x"),
        ("typing", "ForwardRef._evaluate", python),
        ("inspect", "getattr_static", "x"),
        ("dataclasses", "_create_fn", python),
        ("collections", "namedtuple", "x"),
        ("enum", "_make_class_unpicklable", "x"),
        ("signal", "raise_signal", "0"),
        ("gc", "get_objects", "x"),
        ("sys", "setrecursionlimit", "1"),
        ("threading", "Thread.run", "x"),
        ("concurrent.futures.thread", "ThreadPoolExecutor", "x"),
        ("sched", "scheduler.run", "x"),
        ("atexit", "register", "x"),
        ("_pickle", "loads", "x"),
        ("_io", "FileIO", "/etc/hostname"),
        ("_aix_support", "_read_cmd_output", shell),
        ("_osx_support", "_read_output", shell),
        ("_pyrepl.pager", "pipe_pager", "", shell),
        ("cgitb", "lookup", "x"),
        ("imaplib", "IMAP4_stream", shell),
        ("nturl2path", "url2pathname", "x"),
        ("pkgutil", "resolve_name", "os:system"),
        ("unittest.mock", "_importer", "os"),
        ("unittest.loader", "TestLoader.loadTestsFromName", "os"),
        ("xmlrpc.client", "ServerProxy", "http://localhost"),
        ("sqlite3", "connect", "/nonexistent/x"),
        ("aiohttp.client", "ClientSession", "x"),
        ("httplib", "HTTPConnection", "x"),
    ]


def bytes_of(data: bytes) -> bytes:
    """Bytes on the stack."""
    return b"B" + struct.pack("<I", len(data)) + data


def bombs_of_pickle() -> dict[str, bytes]:
    """Pickles that want memory or depth."""
    laughs = b"]" + b"".join(b"q" + bytes([i]) + b"]" + b"(" + (b"h" + bytes([i])) * 10 + b"e" for i in range(30)) + b"."
    return {
        "memo of 2^31": PROTO + b"Nr\xff\xff\xff\x7f.",
        "BINBYTES8 of 2^40": PROTO + b"\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
        "BINUNICODE8 of 2^40": PROTO + b"\x8d" + struct.pack("<Q", 1 << 40) + b"x.",
        "BYTEARRAY8 of 2^40": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",
        "FRAME of 2^60": PROTO + b"\x95" + struct.pack("<Q", 1 << 60) + b"N.",
        "LONG4 of 2^31": PROTO + b"\x8b\xff\xff\xff\x7f1.",
        "a text of 2^31": PROTO + b"X\xff\xff\xff\x7fx.",
        "deep nesting": b"]" * 100_000 + b"a" * 99_999 + b".",
        "a billion laughs": PROTO + laughs,
        "a long int in digits": b"L" + b"9" * 100_000 + b"L\n.",
        "a bytearray that is asked for": PROTO
        + named("builtins", "bytearray")
        + b"(\x8a\x06"
        + (1 << 40).to_bytes(6, "little")
        + b"tR.",
        "an out-of-band buffer": b"\x80\x05\x97.",
        "nothing": b"",
        "no end": b"\x80",
    }


def plain_bombs() -> dict[str, bytes]:
    """Plain encodings that want memory, depth or patience."""
    found: dict[str, bytes] = {}
    for tag in (0x04, 0x07, 0x08, 0x09, 0x0A, 0x0B, 0x10, 0x11, 0x12, 0x13, 0x14):
        for bits in (16, 31, 32, 40, 61, 62, 63):
            found[f"tag {tag:#04x}, size 2^{bits}"] = bytes([tag, 255]) + struct.pack("<Q", 1 << bits) + b"\0"
    found |= {
        f"{levels} levels of tag {tag:#04x}": bytes([tag, 1]) * levels + b"\0"
        for tag in (0x10, 0x11)
        for levels in (101, 100_000)
    }
    huge = b"\x04\xff" + struct.pack("<Q", 50_000) + b"\x7f" * 50_000
    return found | {
        "an int of 400,000 bits": huge,
        "a range of huge ints": b"\x15" + huge + huge + b"\x03\x01" + bytes(6),
        "a list as a key": b"\x14\x01\x11\x00\x00",
        "a set of lists": b"\x12\x01\x11\x00",
        "a range of str": b"\x15\x07\x01x\x00\x00",
        "an unknown tag": b"\x7f",
        "a code point too far": b"\x09\x01\xff\xff\xff\xff",
        "ten thousand empty sets": b"\x11\xff" + struct.pack("<Q", 10_000) + b"\x12\x00" * 10_000,
    }
