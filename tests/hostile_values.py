"""Hostile values, by what they are put in the place of."""

from hostile import raw

_LONG = "a" * 256

NAMES: list[str] = [
    # out of the directory
    *["..", ".", "../x", "../../etc/passwd", "a/../../x", "a/..", "./x", "x/.", "x/", "/x", "//x", "/", "/etc/passwd"],
    *["a/b", "a//b", "blobs/sha256/x", "~/x", "~root/x", "..\\x", "..\\..\\x", "a\\b", "\\x", "\\\\host\\share\\x"],
    *["//host/share/x", "C:x", "C:\\x", "C:/x", "c:", "\\\\?\\C:\\x", "\\\\.\\pipe\\x", "f:stream", "f::$DATA"],
    *["x:y", "file:///etc/passwd", "%2e%2e%2fx", "..%2fx", "%2e%2e", "x%00", "..;/x", ".../x", "....//x", "../.././x"],
    *["/proc/self/root/x", "/dev/stdout", "\u2215etc", "\uff0fetc", "\u2024\u2024/x", "\uff0e\uff0e/x", "a\u2044b"],
    *["a\uff3cb", "..\x00/x", "x/../../../../../../../../tmp/x"],
    # hidden, temporary, our own
    *[".", ".x", ".bashrc", ".ssh", ".tmp", ".epoch-oci", ".part", ".x.tmp", ".git", "..x", "...", "-", ".-"],
    # invisible, steering, ambiguous
    *[
        "",
        " ",
        "  x",
        "x ",
        " x",
        "x y",
        "\t",
        "x\ty",
        "x\n",
        "x\ny",
        "\r",
        "x\r\ny",
        "\x00",
        "x\x00y",
        "\x01x",
        "\x07",
    ],
    *["\x08x", "\x1b[2J", "x\x1b[31m", "\x1b]0;t\x07", "\x7f", "\x80x", "\x85", "\x9b31m", "\xa0x", "\xad", "x\u00ady"],
    *[
        "\u200bx",
        "x\u200b",
        "\u200c",
        "\u200d",
        "\u200e",
        "\u200f",
        "\u2028",
        "x\u2029y",
        "\u202ax",
        "\u202b",
        "\u202c",
    ],
    *["\u202d", "gpj\u202eexe", "\u2060", "\u2066x", "\u2067", "\u2068", "\u2069", "\ufeffx", "\ufffe", "\uffff"],
    *["\ufffd", "\ud800", "x\udfff", "\udc80x", "\ud83d", "\U000e0001", "\U0010ffff", "e\u0301", "\u00e9", "\u212b"],
    *["\u2126", "\ufb01", "\uff21", "\u0131", "\u017f", "\u212a", "\u0430", "\u3000x", "x\u3164", "\u061cx", "\u05d0"],
    *["\u0627", "\U0001f600", "\u00df", "\u1680", "\u180e", "\u2800"],
    # too long
    *[_LONG, "a" * 1000, "a" * 4096, "a" * 65_000, "\u00e9" * 128, "../" * 1000 + "x", "%s" * 200, "{" * 256],
    # reserved by some system
    *["CON", "con", "Con", "con.txt", "nul", "NUL", "nul.txt", "NUL.tar.gz", "aux", "AUX.x", "prn", "PRN.x", "COM1"],
    *[
        "com1",
        "com0",
        "com9.txt",
        "LPT1",
        "lpt9",
        "lpt1.log",
        "CONIN$",
        "conout$",
        "COM\u00b9",
        "LPT\u00b2",
        "x.",
        "x..",
    ],
    *["config.json.", "config.json ", "con.", "aux ", "x. ", "x .", "snapshot.json", "SNAPSHOT.JSON", "Snapshot.Json"],
    # for a shell, a format, a program that reads arguments
    *["-", "-x", "--help", "--checkpoint=1", "-rf", "-o/etc/x", "+x", "@x", "=cmd", "x;y", "x|y", "x&y", "x&&y", "$x"],
    *["$(id)", "`id`", "${IFS}x", "x>y", "x<y", "*", "?", "x*", "[x]", "{a,b}", "!x", "#x", "'x'", '"x"', "(x)", "x^y"],
    *["%s", "%n", "{0}", "{}", "{self}", "x,y", "x=y", "x~", "x'y", "<script>", "a\\nb", "\\", "x\\", "'; drop --"],
]
NAMES = list(dict.fromkeys(NAMES))

NO_STRINGS: list[object] = [None, 1, 0, True, False, 1.5, [], {}, ["x"], {"x": "y"}, raw("1e400"), raw("-0")]

HEX = "0123456789abcdef" * 4
DIGESTS: list[object] = [
    *[
        "",
        "sha256",
        "sha256:",
        ":",
        HEX,
        f"sha256:{HEX.upper()}",
        f"SHA256:{HEX}",
        f"Sha256:{HEX}",
        f"sha256:{HEX[:-1]}",
    ],
    *[
        f"sha256:{HEX}0",
        f"sha256:{HEX[:-1]}g",
        f"sha256:{HEX[:-1]}F",
        f"sha256:{HEX} ",
        f" sha256:{HEX}",
        f"sha256: {HEX}",
    ],
    *[f"sha256:{HEX}\n", f"sha256:{HEX}\x00", f"sha256:{HEX}\r\nX: y", f"sha256:sha256:{HEX}", f"sha256::{HEX}"],
    *[f"sha256-{HEX}", f"sha256/{HEX}", f"sha256={HEX}", f"sha256:{HEX}:{HEX}", f"sha512:{HEX}", f"sha256:{HEX * 2}"],
    *[f"sha384:{HEX}{HEX[:32]}", f"md5:{HEX[:32]}", f"sha1:{HEX[:40]}", f"blake3:{HEX}", f"sha3-256:{HEX}"],
    *[
        f"sha256+b64:{HEX}",
        f"multihash+base58:{HEX}",
        f"x:{HEX}",
        f"../{HEX}",
        f"sha256:../{HEX[3:]}",
        "sha256:../../x",
    ],
    *[f"sha256:{'../' * 21}a", f"/sha256:{HEX}", f"sha256:{HEX}/../x", f"sha256:{HEX}?x=y", f"sha256:{HEX}#x"],
    *[f"sha256:%2e{HEX[3:]}", f"..:{HEX}", f"sha256\\:{HEX}", f"sha256:{HEX[:-1]}\u0660", f"sha256:{HEX[:-1]}\uff10"],
    *[f"sha256\u200b:{HEX}", f"\ufeffsha256:{HEX}", f"sha256:0x{HEX[2:]}", f"sha256:-{HEX[1:]}", f"sha256:+{HEX[1:]}"],
    *[f"sha256:{HEX[:32]}_{HEX[33:]}", f"sha256:{HEX[:32]} {HEX[33:]}", "sha256:" + "a" * 100_000, "\ud800", "\x1b[2J"],
    *[f"\u202esha256:{HEX}", None, 0, 1, True, False, 1.5, [], {}, [f"sha256:{HEX}"], {"sha256": HEX}, raw("1e400")],
]
BARE_DIGESTS: list[object] = [
    *[
        "",
        HEX[:-1],
        HEX + "0",
        HEX.upper(),
        f"sha256:{HEX}",
        f"sha256-{HEX}",
        HEX[:-1] + "g",
        HEX + "\n",
        " " + HEX[1:],
    ],
    *["../" + HEX[3:], "..", "/" + HEX[1:], HEX[:32] + "/" + HEX[33:], HEX[:-1] + "\u0660", HEX * 2, "x", "\x00" * 64],
    *["\x1b[2J", "a" * 100_000, None, 0, 1, True, 1.5, [], {}, [HEX], raw("1e400"), "0x" + HEX[2:], HEX[:-1] + "%"],
]

SIZES: list[object] = [
    *[-1, -(2**53), -(2**63), -(2**64), "5", "", "0", "1e3", "-1", "0x10", None, True, False, [], {}, [5], {"size": 5}],
    *[2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, 10**300, 1.5, -1.5],
    *map(raw, ["-0", "0.0", "1.0", "1300.0", "1e3", "1E3", "1e-3", "13e2", "-0.0", "1e300", "0.1e1", "9" * 399]),
]
NO_NUMBERS: list[str] = [
    *["1e400", "-1e400", "NaN", "Infinity", "-Infinity", "9" * 5_000, "9" * 401, "-" + "9" * 5_000, "01", "+1", ".5"],
    *["1.", "0x10", "1_000", "\u0661", "undefined", "nan", "1e", "--1", "1 2", "", "'1'", "True", "None"],
]
