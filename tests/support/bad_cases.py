"""Case files with one mistake each: the text of the file, and a part of the problem reported, with line and column."""

from __future__ import annotations

from segcore.inputs.cases.yaml_source import MAX_FILE_BYTES

HEAD = "name: cat\nimage: {resource: 'skimage:chelsea.png'}\n"

BAD: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "1:1: is empty: wanted a case"),
    "only a comment": ("# nothing\n", "1:1: is empty"),
    "a list": ("- a\n", "1:1: should be a mapping, found a list"),
    "text": ("cat\n", "1:1: should be a mapping, found the text 'cat'"),
    "no cases": ("cases: []\n", "1:1: cases: should be a list of at least one case"),
    "cases are no list": ("cases: {a: b}\n", "1:1: cases: should be a list"),
    "a case is null": ("cases:\n  -\n", "2:4: should be a mapping, found nothing"),
    "beside cases": ("case: []\n" + "cases:\n  - name: x\n", "1:1: unknown key 'case'"),
    "two documents": (HEAD + "---\n" + HEAD, "3:1: is not YAML: expected a single document"),
    "syntax": ("name: [\n", "2:1: is not YAML"),
    "tab": ("name:\n\tcat\n", "2:1: is not YAML"),
    "not UTF-8": (HEAD.encode() + b"tags: [\xff]", "3:1: is not UTF-8: found byte 0xff"),
    "half a character of UTF-16": (HEAD.encode("utf-16") + b"x", "is not UTF-16-LE: found byte 0x78"),
    "control character": (HEAD + "skip_reason: \x07", "3:14: has a character that YAML does not allow: U+0007"),
    "bad escape": (HEAD + 'skip_reason: "\\U00ffffff"', "3:1: is not YAML: chr() arg not in range"),
    "bad version": ("%YAML 3.0\n---\n" + HEAD, "1:1: is not YAML"),
    "too large": (
        HEAD + "#" * MAX_FILE_BYTES,
        f"1:1: has {len(HEAD) + MAX_FILE_BYTES} bytes: wanted at most {MAX_FILE_BYTES}",
    ),
    "too deep": (HEAD + "tags: " + "[" * 5000, "3:22: is not YAML: nested more than 16 deep"),
    "python tag": (
        HEAD + "tags: !!python/object/apply:os.system [x]",
        "3:7: has a tag, !!python/object/apply:os.system",
    ),
    "own tag": (HEAD + "tags: [!x a]", "3:8: has a tag, !x"),
    "known tag": (HEAD + "sizes: [!!int '64']", "3:9: has a tag, !!int"),
    "anchor": (HEAD + "tags: [&a x]", "3:8: has an anchor, &a"),
    "alias": (HEAD + "tags: [*a]", "3:8: has an alias, *a"),
    "merge": (HEAD + "<<: {}", "3:1: unknown key '<<'"),
    "list as key": (HEAD + "? [a]\n: b", "3:3: has a list or mapping as a key"),
    "key twice": (HEAD + "tags: [a]\ntags: [b]", "4:1: key 'tags' is repeated: first in line 3"),
    "key twice, quoted": (HEAD + "tags: [a]\n'tags': [b]", "4:1: key 'tags' is repeated"),
    "unknown key": (
        HEAD + "expct: {}",
        "3:1: unknown key 'expct' (did you mean 'expect'?); valid keys are expect, image",
    ),
    "unknown key below": (
        HEAD + "expect:\n  classes:\n    cat: {min_fracton: 1}",
        "5:11: expect.classes.cat: unknown key 'min_fracton' (did you mean 'min_fraction'?)",
    ),
    "unknown limit": (
        HEAD + "limits: {max_slow_down: 1}",
        "3:10: limits[1]: unknown key 'max_slow_down' (did you mean",
    ),
    "our own field": (HEAD + "source_file: x", "3:1: unknown key 'source_file'"),
    "no name": ("image: {path: x}", "1:1: name is missing"),
    "no image": ("name: x", "1:1: image is missing"),
    "name": (HEAD.replace("cat", "Cat 1"), "1:7: name: should be 1 to 64 lower-case letters, digits, - and _"),
    "name a number": (HEAD.replace("cat", "12"), "1:7: name: should be text, found 12; put it in quotes"),
    "name a boolean": (HEAD.replace("cat", "true"), "1:7: name: should be text, found true; put it in quotes"),
    "skip_reason a list": (HEAD + "skip_reason: [no]", "3:14: skip_reason: should be text, found a list"),
    "empty skip_reason": (HEAD + "skip_reason: ''", "3:14: skip_reason: should not be empty"),
    "class no": (
        HEAD + "expect: {absent: [no]}",
        "3:19: expect.absent[1]: unknown class 'no'",
    ),
    "class key no": (HEAD + "expect: {classes: {no: {}}}", "3:20: expect.classes: unknown class 'no'"),
    "unknown class": (
        HEAD + "expect: {dominant: doog}",
        "3:20: expect.dominant: unknown class 'doog' (did you mean 'dog'?)",
    ),
    "class 21": (HEAD + "expect: {dominant: 21}", "3:20: expect.dominant: class 21 is not a class of voc"),
    "class true": (HEAD + "expect: {dominant: True}", "3:20: expect.dominant: should be the name or index of a class"),
    "class 1.5": (HEAD + "expect: {dominant: 1.5}", "3:20: expect.dominant: should be the name or index"),
    "expect is null": (HEAD + "expect:", "3:8: expect: should be a mapping, found nothing"),
    "fraction above 1": (
        HEAD + "expect: {classes: {cat: {min_fraction: 50}}}",
        "3:40: expect.classes.cat.min_fraction: should be less",
    ),
    "fraction as text": (
        HEAD + "expect: {classes: {cat: {min_fraction: 50%}}}",
        "should be a number, found the text '50%'",
    ),
    "not a number": (
        HEAD + "expect: {classes: {cat: {min_fraction: .nan}}}",
        "3:40: expect.classes.cat.min_fraction: should be a finite",
    ),
    "infinite": (HEAD + "limits: {min_throughput: .inf}", "3:26: limits[1].min_throughput: should be a finite number"),
    "infinite by size": (
        HEAD + "limits: {min_throughput: 1e999}",
        "3:26: limits[1].min_throughput: should be a finite",
    ),
    "size too small": (HEAD + "sizes: [31]", "3:9: sizes[1]: should be greater than or equal to 32, found 31"),
    "size too large": (HEAD + "sizes: [320, 4097]", "3:14: sizes[2]: should be less than or equal to 4096, found 4097"),
    "size octal": (HEAD + "sizes: [0320]", "3:9: sizes[1]: should be a whole number, found the text '0320'"),
    "size sexagesimal": (HEAD + "sizes: [5:20]", "should be a whole number, found the text '5:20'"),
    "size huge": (HEAD + f"sizes: [{'9' * 5000}]", "3:9: sizes[1]: should be a whole number"),
    "no size": (HEAD + "sizes: []", "3:8: sizes: should not be empty, found a list"),
    "size twice": (HEAD + "sizes: [64, 64]", "3:1: sizes repeats a value"),
    "sizes no list": (HEAD + "sizes: 320", "3:8: sizes: should be a list, found 320"),
    "no source": ("name: x\nimage: {}", "2:1: image: wanted exactly one of url, path and resource, found none"),
    "two sources": (
        "name: x\nimage: {path: a, resource: 'b:c'}",
        "2:1: image: wanted exactly one of url, path and resource, found path and resource",
    ),
    "url without hash": ("name: x\nimage: {url: https://a.b/c}", "2:9: image: a url needs its sha256"),
    "hash without url": ("name: x\nimage:\n  path: a\n  sha256: " + "a" * 64, "4:3: image: sha256 needs a url"),
    "short hash": (
        "name: x\nimage: {url: https://a.b/c, sha256: abc}",
        "image.sha256: should be 64 hexadecimal digits",
    ),
    "file url": (
        f"name: x\nimage: {{url: file:///etc/passwd, sha256: {'a' * 64}}}",
        "2:14: image.url: should be an https address",
    ),
    "url without host": (
        f"name: x\nimage: {{url: 'https:///c', sha256: {'a' * 64}}}",
        "2:14: image.url: should be an https address",
    ),
    "path up": ("name: x\nimage: {path: a/../../b}", "2:15: image.path: should be a path below"),
    "absolute path": ("name: x\nimage: {path: /etc/passwd}", "2:15: image.path: should be a path below"),
    "drive": ("name: x\nimage: {path: 'c:b'}", "2:15: image.path: should be a path below"),
    "backslash": ("name: x\nimage: {path: 'a\\b'}", "2:15: image.path: should be a path below"),
    "path not there": ("name: x\nimage: {path: gone.jpg}", "2:15: image.path:"),
    "resource not there": (
        "name: x\nimage: {resource: 'skimage:chelsee.png'}",
        "2:19: image.resource: 'skimage:chelsee.png'",
    ),
    "mask not there": (HEAD + "expect: {ground_truth: {path: gone.png}}", "3:31: expect.ground_truth.path:"),
    "no range": (
        HEAD + "expect: {classes: {cat: {}}}",
        "3:20: expect.classes.cat: wanted min_fraction, max_fraction or both",
    ),
    "min over max": (
        HEAD + "expect: {classes: {cat: {min_fraction: 0.5, max_fraction: 0.4}}}",
        "3:26: expect.classes.cat: min_fraction 0.5 is greater than max_fraction 0.4",
    ),
    "dominant absent": (
        HEAD + "expect: {dominant: plane, absent: [airplane]}",
        "3:10: expect: aeroplane is both dominant and absent",
    ),
    "present absent": (
        HEAD + "expect:\n  absent: [tv]\n  classes:\n    monitor: {min_fraction: 0.1}",
        "6:15: expect: tvmonitor has a min_fraction but is absent",
    ),
    "scored absent": (
        HEAD + "expect: {absent: [tv], min_iou: {tv: 0.1}, ground_truth: {resource: 'skimage:chelsea.png'}}",
        "expect: tvmonitor has a min_iou but is absent",
    ),
    "dominant without pixels": (
        HEAD + "expect: {dominant: cat, classes: {cat: {max_fraction: 0}}}",
        "cat is dominant with a max_fraction of 0",
    ),
    "dominant surpassed": (
        HEAD + "expect: {dominant: cat, classes: {cat: {max_fraction: 0.2}, dog: {min_fraction: 0.3}}}",
        "dog has at least 0.3, more than the dominant cat may have (0.2)",
    ),
    "dominant background": (
        HEAD + "expect: {dominant: background, classes: {dog: {min_fraction: 0.3}}}",
        "3:10: expect: background is dominant only without",
    ),
    "sum of minima": (
        HEAD + "expect: {classes: {cat: {min_fraction: 0.6}, dog: {min_fraction: 0.6}}}",
        "3:10: expect: the min_fractions add up to 1.2",
    ),
    "class twice": (HEAD + "expect: {absent: [tv, tvmonitor]}", "3:18: expect.absent: names tvmonitor twice"),
    "class key twice": (
        HEAD + "expect: {classes: {15: {min_fraction: 0}, person: {min_fraction: 0}}}",
        "3:19: expect.classes: names person twice",
    ),
    "score without mask": (
        HEAD + "expect: {min_miou: 0.5, min_iou: {cat: 0.5}}",
        "3:10: expect: min_miou needs a ground_truth",
    ),
    "limits nothing": (HEAD + "limits:\n  - when: {device: cpu}", "4:5: limits[1]: sets no limit"),
    "unknown device": (
        HEAD + "limits: {when: {device: gpu}, max_drift: 0}",
        "limits[1].when.device[1]: should be cpu, mps, cuda or",
    ),
    "unknown precision": (
        HEAD + "limits: {when: {precision: int4}, max_drift: 0}",
        "limits[1].when.precision[1]: should be 'fp32'",
    ),
    "bad percentile": (
        HEAD + "limits: {max_slowdown: {p0: 0.1}}",
        "3:25: limits[1].max_slowdown: should be a percentile from",
    ),
    "negative limit": (
        HEAD + "limits: {max_slowdown: -0.1}",
        "3:24: limits[1].max_slowdown.p50: should be greater than or equal to 0",
    ),
    "idle rule": (HEAD + "tags: [a]\nlimits:\n  - {when: {tag: b}, max_drift: 0}", "5:18: limits[1] never holds"),
}
