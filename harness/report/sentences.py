"""The Chinese of sentences that evidence makes, which hold names and numbers: patterns, and what they become.

A sentence is recorded in English, as part of evidence; a page shows it in both languages. A part in angle brackets
matches anything, as short as possible, and is translated in turn where it is a sentence or a text itself; a part of one
letter matches a number.
"""

import functools
import re
from collections.abc import Mapping

from harness.report.criteria_in_chinese import CRITERIA

MOST_PARTS = 64  # of a sentence, and of its parts
LONGEST = 1000  # characters of a sentence; a longer text is a list of names, or no sentence of this project
NUMBER = r"[\d,.\u202f]+"
# Of several patterns that match, the first counts.
SENTENCES: Mapping[str, str] = {
    # the verdict
    "<run> did not finish: <rest>": "{run} 未完成:{rest}",
    "<some> of <all> criteria pass, none fails; <rest>.": "{all} 项准则中 {some} 项通过,无一不通过;{rest}。",
    "<some> of <all> criteria pass, none fails.": "{all} 项准则中 {some} 项通过,无一不通过。",
    "<some> of <all> criteria fail, the first at step <step>; <rest>.": (
        "{all} 项准则中 {some} 项不通过,最早在第 {step} 步;{rest}。"
    ),
    "<some> of <all> criteria fail, the first at step <step>.": "{all} 项准则中 {some} 项不通过,最早在第 {step} 步。",
    "<some> of <all> criteria fail; <rest>.": "{all} 项准则中 {some} 项不通过;{rest}。",
    "<some> of <all> criteria fail.": "{all} 项准则中 {some} 项不通过。",
    "<n> could not be judged; <rest>": "{n} 项无法判定;{rest}",
    "<n> could not be judged": "{n} 项无法判定",
    "<n> inconclusive": "{n} 项无定论",
    "The first step beyond a limit is step <step> (<criterion>).": "最早超出阈值的是第 {step} 步({criterion})。",
    "The run is valid until <day>.": "本次运行有效期至 {day}。",
    "The run expired on <day>.": "本次运行已于 {day} 过期。",
    "Measured on <device>. It holds for no other device, layout or precision.": (
        "在 {device} 上测得。对其他设备、并行切分或精度无效。"
    ),
    "<run> was collected from the trainer <name>; the harness did not run it.": (
        "{run} 采集自训练器 {name},并非由本框架运行。"
    ),
    "Not collected, and so not judged: <runs>.": "未采集,因此未判定:{runs}。",
    "<run> was collected from a trainer of its own": "{run} 采集自用户自己的训练器",
    "<run> was collected by other code (<digest>)": "{run} 由其他版本的代码采集({digest})",
    # requirements of levels
    "Judged against the official standard of this version": "按本版本的官方标准判定",
    "the official standard is not in this bundle": "此证据包中没有官方标准",
    "Maintained by a team, not only by the community": "由团队维护,而不仅由社区维护",
    "<person> signed for the community, and no team signed": "{person} 代表社区签署,没有团队签署",
    "no standard in this bundle requires it": "此证据包中没有标准要求此项",
    "Run at most <n> days ago": "运行距今不超过 {n} 天",
    "run on <day>, valid until <until>": "运行于 {day},有效期至 {until}",
    "run on <day>, after <at>: a clock is wrong, or --at is an earlier day": (
        "运行于 {day},晚于 {at}:时钟有误,或 --at 给出了更早的日期"
    ),
    "it expired on <day>; run it again: <command>": "已于 {day} 过期;重新运行:{command}",
    "No criterion is FAIL or ERROR": "没有准则为 FAIL 或 ERROR",
    "none of <n>": "{n} 项中无",
    "Every criterion passes": "所有准则通过",
    "<name> waived by <person> until <day>: <reason>": "{name} 由 {person} 豁免至 {day}:{reason}",
    "Run from a committed source revision": "从已提交的代码版本运行",
    "<revision>, with uncommitted changes": "{revision},含未提交的修改",
    "no checkout": "不在代码仓中",
    "Measured by the shipped reference and oracle": "由随附的参考实现与精确解测量",
    "the <side> is <runner>; the <other> is <another>": "{side}为 {runner};{other}为 {another}",
    "the <side> is <runner>": "{side}为 {runner}",
    "the oracle repeats the <side>'s <results>": "精确解重复了{side}的 {results}",
    "every one of the subject's <results> has the reference's bits, as in a copy": (
        "被测模型的每个 {results} 都与参考实现逐位相同,如同复制所得"
    ),
    "oracle": "精确解",
    "The strict limits were measured for the reference's device": "严格阈值已针对参考实现所在的设备测量",
    "<device>, by a recorded floor": "{device},依据已录制的噪声底",
    "The limits for this reference are <why>": "此参考实现的阈值:{why}",
    "not measured: the strict limits come from implementations on a CPU, and this reference ran on <device>. "
    "How far apart correct references on both are: <command>": (
        "未测量:严格阈值来自 CPU 上的实现,而此参考实现运行于 {device}。两种设备上正确的参考实现相差多远:{command}"
    ),
    "The baseline is signed by a team": "基线由团队签署",
    "recorded <when> by <person> on <device>; <signed>": "由 {person} 于 {when} 在 {device} 上录制;{signed}",
    "Reference and oracle did not run with the subject: <person> recorded them on <day>. Device: <device>; <signed>.": (
        "参考实现与精确解未与被测对象一同运行:由 {person} 于 {day} 录制。设备:{device};{signed}。"
    ),
    "not signed": "未签名",
    "signed by no one who is trusted": "没有可信人员的签名",
    "signed, and no signature was checked: no trust file was given": "已签名,但未校验任何签名:没有给出信任文件",
    "signed by <people>": "由 {people} 签名",
    "Signed by the developer": "由开发者签署",
    "Signed by the development team, by a second person": "由开发团队签署,须为第二人",
    "Signed by the test team, by a third person": "由测试团队签署,须为第三人",
    "no valid signature": "没有有效签名",
    "<person> also signed in another role: no one accepts their own work": (
        "{person} 还以其他角色签署:任何人不得验收自己的工作"
    ),
    "<person>'s statement was withdrawn by <by>: <reason>": "{person} 的声明已由 {by} 撤回:{reason}",
    "<person>'s statement is about another bundle": "{person} 的声明针对另一个证据包",
    "<person>'s statement does not match what the bundle shows": "{person} 的声明与证据包所示不符",
    "<person>'s statement states that it failed": "{person} 的声明称其未通过",
    "The test team's own independent run agrees": "测试团队自己的独立运行一致",
    "there is no second run of this case": "此用例没有第二次运行",
    "<agreement>; that it is independent is the word of <person>": "{agreement};其独立性由 {person} 以签名担保",
    "<name> is the same run": "{name} 是同一次运行",
    "<name> was judged by other standards": "{name} 按其他标准判定",
    "<name> has no nonce: it was not made by this version": "{name} 没有随机标识:并非由本版本生成",
    "<name> started before the first run": "{name} 的开始时间不晚于首次运行",
    "<name> has not the time of each step of <run>": "{name} 缺少 {run} 各步的耗时",
    "<name> has times of <run> that do not fit its duration": "{name} 中 {run} 的耗时与总时长不符",
    "<name> has other code of the same revision": "{name} 的版本相同而代码不同",
    "<name> is of another revision, which is not known to be newer": "{name} 来自另一版本,无法确定其更新",
    "<name> is a run of another case": "{name} 是另一用例的运行",
    "<name> is a run of another implementation": "{name} 是另一实现的运行",
    "<name> does not meet the criteria on its own": "{name} 本身不满足准则",
    "<name> is not signed by a test team that has no part in the first run": (
        "{name} 未由与首次运行无关的测试团队签署"
    ),
    "<name>: the same bits in every number": "{name}:每个数逐位相同",
    "is of <criterion>, without which two runs are not of one case: no one can accept that": (
        "针对 {criterion},缺少它两次运行就不属于同一用例:任何人不得接受"
    ),
    "is about another case": "针对另一个用例",
    "is about another scope": "针对另一个适用范围",
    "is about another bundle or revision": "针对另一个证据包或代码版本",
    "is by a person who has another part in this bundle": "签署人在此证据包中另有角色",
    "does not count before the developer who ran it has signed": "须待运行者(开发者)签署后才有效",
    "Nothing is waived": "没有豁免",
    "no waiver": "无豁免",
    "A model of this kind: this project has no mixture of experts": "此类模型:本项目没有混合专家模型",
    "A case of this task: this project has none": "此任务的用例:本项目没有",
    "A bundle of this cell, run on <device>: there is none": "此单元在 {device} 上运行所得的证据包:没有",
    # scope, and what a run changed
    "<model>, training on <device>, <rest>": "{model},在 {device} 上训练,{rest}",
    "<model>, inference on <device>, <rest>": "{model},在 {device} 上推理,{rest}",
    "not a shipped case, digest <digest>": "非随附用例,摘要 {digest}",
    "<field> <value>, shipped <before>": "{field} 为 {value},随附用例为 {before}",
    "absent": "无",
    "mode <mode>": "模式 {mode}",
    "at most <memory> of a device": "单卡内存上限 {memory}",
    "sequence length <n>": "序列长度 {n}",
    "<layout>, <n> micro batches, whole embeddings": "{layout},{n} 个 micro batch,词表不切分",
    "<layout>, <n> micro batches": "{layout},{n} 个 micro batch",
    "<size>, <k> of <n> layers, vocabulary <v> of <w>": "{size},{n} 层中的 {k} 层,词表 {w} 中的 {v}",
    "<size>, <k> of <n> layers": "{size},{n} 层中的 {k} 层",
    "<size>, drawn weights": "{size},随机生成的权重",
    # a finding: its title, what was found, where
    "<title>: <found> (<standard>); first beyond the limit at step <step>: <one> has <first>, <other> has <second>": (
        "{title}:{found}({standard});最早在第 {step} 步超出阈值:{one} 为 {first},{other} 为 {second}"
    ),
    "<title>: <found> (<standard>); first beyond the limit at step <step>": (
        "{title}:{found}({standard});最早在第 {step} 步超出阈值"
    ),
    "<title>: <found> (<standard>); differs: <places>": "{title}:{found}({standard});不同之处:{places}",
    "<title>: <found> (<standard>); worst: <place>": "{title}:{found}({standard});最差:{place}",
    "<found> (<standard>); first beyond the limit at step <step>: <one> has <first>, <other> has <second>": (
        "{found}({standard});最早在第 {step} 步超出阈值:{one} 为 {first},{other} 为 {second}"
    ),
    "<found> (<standard>); first beyond the limit at step <step>": "{found}({standard});最早在第 {step} 步超出阈值",
    "<found> (<standard>); worst: <place>": "{found}({standard});最差:{place}",
    "root mean square <value>, <rule>": "均方根 {value},{rule}",
    "largest <value>, <rule>": "最大 {value},{rule}",
    "smallest <value>, <rule>": "最小 {value},{rule}",
    "mean <value>, <rule>": "均值 {value},{rule}",
    "bias <value>, <rule>": "偏置 {value},{rule}",
    "step 1 <value>, <rule>": "第 1 步 {value},{rule}",
    "at most <value> allowed (<standard>)": "至多 {value}({standard})",
    "less than <value> allowed (<standard>)": "须小于 {value}({standard})",
    "at least <value> required (<standard>)": "至少 {value}({standard})",
    "at most <value> allowed": "至多 {value}",
    "less than <value> allowed": "须小于 {value}",
    "at least <value> required": "至少 {value}",
    "first beyond at step <step>": "最早在第 {step} 步超出",
    "first beyond at <place>": "最早在 {place} 超出",
    "worst at step <step>": "最差在第 {step} 步",
    "worst at <place>": "最差在 {place}",
    "<some> of <all> pass; closest to its limit, <used>: <title>": "{all} 项中 {some} 项通过;最接近阈值的({used}):{title}",
    "<some> of <all> pass": "{all} 项中 {some} 项通过",
    "<share> of what is required": "要求值的 {share}",
    "below <n> %": "低于 {n} %",
    "just below 100 %": "略低于 100 %",
    # how a run ended
    "<n> of <all> steps": "{all} 步中的 {n} 步",
    "not finite at step <step>: <rest>": "第 {step} 步出现非有限数:{rest}",
    "not finite at step <step>": "第 {step} 步出现非有限数",
    "killed by signal <n> after step <step>": "第 {step} 步后被信号 {n} 终止",
    "was not run": "未运行",
    "not measured": "未测量",
    "not a number": "非数",
    "not finite": "非有限数",
    "not exact": "不精确相等",
    "exact": "精确相等",
    "step 1": "第 1 步",
    "mean": "均值",
    "root mean square": "均方根",
    "largest": "最大",
    "smallest": "最小",
    "bias": "偏置",
    "no limit": "无阈值",
    "identical bits": "逐位相同",
    "in <n> of <all> steps": "{all} 步中的 {n} 步",
    "in <n> of <all> tensors": "{all} 个张量中的 {n} 个",
    "in <n> of <all> documents": "{all} 个文档中的 {n} 个",
    # a study of detection power
    "<found> of <planted> planted defects rejected; <alarms> of <clean> clean runs.": (
        "植入的 {planted} 个缺陷中拒绝 {found} 个;{clean} 次正确运行中误报 {alarms} 次。"
    ),
    "<found> of <planted> planted defects rejected; <rest>": "植入的 {planted} 个缺陷中拒绝 {found} 个;{rest}",
    "All criteria together": "全部准则合计",
    "official ceilings": "官方上限",
    "official ceiling": "官方上限",
    "first step and mean loss": "首步与平均 loss",
    "per step, <n> %": "逐步,{n} %",
    "accuracy": "准确率",
    "perplexity": "困惑度",
    "The place": "定位",
    "False alarms": "误报",
    "By older criteria": "以更早的准则判定",
    "Planted before a criterion": "植入早于准则",
    "Planted after the criteria": "植入晚于准则",
    "Faults of others": "他人报告的缺陷",
    # bundles that are no evidence
    "<where> is not what was recorded. <what>.": "{where} 与记录不符。{what}。",
    "<where> does not follow from the traces of its bundle.": "{where} 无法由其证据包的轨迹得出。",
    "<where> does not have the format <form>.": "{where} 的格式不是 {form}。",
    "<where> is not in canonical form: it was edited.": "{where} 不是规范格式:它被编辑过。",
    "missing: <names>": "缺少:{names}",
    "extra: <names>": "多出:{names}",
    "changed: <names>": "已更改:{names}",
    # titles of cases
    "Qwen3, <n> layers of width <w> with <k> key-value heads": "Qwen3,{n} 层,宽度 {w},{k} 个 KV 头",
    "Qwen3, <n> layers of width <w> with a tied head": "Qwen3,{n} 层,宽度 {w},词表共享",
    "Qwen3, <n> layers of width <w>, <rest>": "Qwen3,{n} 层,宽度 {w},{rest}",
    "Qwen3, <n> layers of width <w>": "Qwen3,{n} 层,宽度 {w}",
    "Qwen3, <n> layers of width <w> <rest>": "Qwen3,{n} 层,宽度 {w},{rest}",
    "Qwen3 with a tied head, <rest>": "词表共享的 Qwen3,{rest}",
    "with a tied head, <rest>": "词表共享,{rest}",
    "with <n> key-value heads, <rest>": "{n} 个 KV 头,{rest}",
    "Qwen3-<size>, bfloat16, <rest>": "Qwen3-{size},bfloat16,{rest}",
    "<size> whole, <rest>": "完整 {size},{rest}",
    "inference with drawn weights, <rest>": "以随机权重推理,{rest}",
    "after <n> steps of training, <rest>": "训练 {n} 步之后,{rest}",
    "ragged rows, <rest>": "不等长行,{rest}",
    "ragged rows": "不等长行",
    "float32, <rest>": "float32,{rest}",
    "bfloat16, <rest>": "bfloat16,{rest}",
    "bfloat16 matrix products": "bfloat16 矩阵乘",
    "data parallel <n>, <rest>": "数据并行 {n},{rest}",
    "tensor parallel <n>, <rest>": "张量并行 {n},{rest}",
    "data parallel <n>": "数据并行 {n}",
    "tensor parallel <n>": "张量并行 {n}",
    "positions and moments shared too": "位置与优化器状态也切分",
    "pipeline of <n> stages with <a> and <b> layers": "{n} 级流水线,分别 {a} 层与 {b} 层",
    "pipeline of <n> stages": "{n} 级流水线",
    "two micro batches and recompute, <rest>": "两个 micro batch 与重计算,{rest}",
    "one device": "单卡",
    "<n> devices in the layout of the pretraining guide": "{n} 卡,按预训练指南的切分",
    "<n> devices": "{n} 卡",
    "fine-tuned on conversations, <rest>": "以对话微调,{rest}",
    "positions reset alone, <rest>": "仅重置位置,{rest}",
    # provenance
    "<n> layers of width <w>, <h> heads, <k> key-value heads of width <d>": (
        "{n} 层,宽度 {w},{h} 个注意力头,{k} 个宽度 {d} 的 KV 头"
    ),
    "<n> of <t> tokens, <packing>": "{n} 行,每行 {t} 个词元,{packing}",
    "<type>, <rate> after <n> warm-up steps": "{type},{n} 步预热后为 {rate}",
    "<type>, weight decay <value>": "{type},权重衰减 {value}",
    "bytes, no file": "字节,无文件",
    "clean: every file as committed": "干净:所有文件均已提交",
    "files differed from this revision": "有文件与此版本不同",
    "not a checkout": "不是代码仓的检出",
    "<file>, read before the runs of the <side>": "{file},在{side}的运行开始之前读取",
    "sources of <package>": "{package} 的源码",
    "text generated by this project": "由本项目生成的文本",
    "conversations generated by this project": "由本项目生成的对话",
    "<n> tokens": "{n} 个词元",
    "<n> rows, <p> prompts and <t> texts; <d> documents of each other task": (
        "{n} 行、{p} 个提示与 {t} 段文本;其他任务各 {d} 个文档"
    ),
    "<share> of the positions: answers, each with its end": "{share} 的位置:回答,各含其结束符",
    "several conversations": "多段对话",
    "one conversation each": "每行一段对话",
    "attention and positions": "注意力与位置",
    "neither attention nor positions": "注意力与位置均不重置",
    "<run> was resumed after step <steps>.": "{run} 在第 {steps} 步之后恢复运行。",
    "resumed after step <steps>": "在第 {steps} 步之后恢复运行",
    "<n> of <k>": "{k} 中的 {n}",
    "no trace": "无轨迹",
    "<layout>, float32": "{layout},float32",
    "<layout>, bfloat16": "{layout},bfloat16",
    # several of these, in one line
    "<one>; <others>": "{one};{others}",
    "<text>: <detail>": "{text}:{detail}",
}


def translated(text: str, texts: Mapping[str, str]) -> str | None:
    """The Chinese of a sentence; None where neither a pattern nor a part of it has any."""
    return _translated(text, texts, [MOST_PARTS])


def _translated(text: str, texts: Mapping[str, str], left: list[int]) -> str | None:
    return texts.get(text) or CRITERIA.get(text) or _by_pattern(text, texts, left)


def _by_pattern(text: str, texts: Mapping[str, str], left: list[int]) -> str | None:
    """The first pattern that matches; `left` is how many parts are still looked at, since a text that no one of this
    project wrote can match in more ways than anyone waits for."""
    if len(text) > LONGEST or not left[0]:
        return None
    left[0] -= 1
    for pattern, chinese in _patterns():
        if (match := pattern.fullmatch(text)) is None:
            continue
        parts = {name: _translated(one, texts, left) or one for name, one in match.groupdict().items()}
        # a pattern that is punctuation alone adds nothing where no part of it is known
        if chinese.isascii() and parts == match.groupdict():
            continue
        return chinese.format(**parts)
    return None


@functools.cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(_regex(english), re.S), chinese) for english, chinese in SENTENCES.items())


def _regex(english: str) -> str:
    """A pattern as a regular expression. What ends a part is where it first stands, and is not looked for again: so
    the time is that of reading the text, whatever it holds."""
    units = [""]
    for piece in re.split(r"(<\w+>)", english):
        if not piece.startswith("<"):
            units[-1] += re.escape(piece)
        elif len(piece) == len("<n>"):
            units[-1] += f"(?P{piece}{NUMBER})"
        else:
            units.append(f"(?P{piece}.+?)")
    first, *parts = units
    return first + "".join(f"(?>{part})" for part in parts[:-1]) + "".join(parts[-1:])
