"""What the site says, in English and Chinese. What a bundle says is shown as it stands there."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """The same in both languages."""

    en: str
    zh: str


LEVELS: Mapping[str, Text] = {
    "Released": Text("Released", "Released(发布级)"),
    "Validated": Text("Validated", "Validated(验证级)"),
    "Preliminary": Text("Preliminary", "Preliminary(初步级)"),
    "Untested": Text("Untested", "Untested(未测试级)"),
    "Community": Text("Community", "Community(社区级)"),
    "none": Text("none", "无等级"),
}

WORDS: Mapping[str, Text] = {
    "title": Text("Levels of models", "模型等级"),
    "skip": Text("Skip to the table of levels", "跳到等级表"),
    "sections": Text("Sections", "章节"),
    "levels": Text("Levels", "等级"),
    "versions": Text("Versions", "版本配套"),
    "not-certified": Text("Not certified", "未认证"),
    "history": Text("History", "历史"),
    "power": Text("Detection power", "检出能力"),
    "check": Text("Check it yourself", "自行核验"),
    "as-of": Text("As of", "截至"),
    "lead": Text(
        "Each level is computed from evidence: every step of the model on MindSpore beside PyTorch and Hugging Face, "
        "judged by limits that were frozen before the run. It holds for one device, one layout and one precision. A "
        "result from a CPU is never a level on an NPU.",
        "每个等级都由证据计算得出:模型在 MindSpore 上与 PyTorch、Hugging Face 逐步对比,并按运行前已冻结的阈值判定。"
        "等级只对一种设备、一种并行切分和一种精度有效。CPU 上的结果绝不作为 NPU 的等级。",
    ),
    "model": Text("Model", "模型"),
    "size": Text("Size", "规格"),
    "task": Text("Task", "任务"),
    "architecture": Text("Architecture", "架构"),
    "device": Text("Devices", "设备"),
    "layout": Text("Layout", "并行切分"),
    "precision": Text("Precision", "精度"),
    "level": Text("Level", "等级"),
    "run": Text("Run on", "运行日期"),
    "until": Text("Valid until", "有效期至"),
    "worst": Text("Closest to its limit", "最接近阈值"),
    "evidence": Text("Evidence", "证据"),
    "certificate": Text("certificate", "证书"),
    "badge": Text("badge", "徽章"),
    "training": Text("training", "训练"),
    "one process": Text("one process", "单进程"),
    "cell": Text("Cell", "单元"),
    "not recorded": Text("not recorded", "未记录"),
    "none-there": Text("none on a CPU", "CPU 上无"),
    "passes": Text("criteria pass", "项准则通过"),
    "missing-for": Text("requirements missing for", "项要求未满足,目标等级"),
    "no-npu": Text(
        "No cell here was run on an NPU. Nothing on this page says how a model does on one.",
        "此处没有任何单元在 NPU 上运行过。本页不说明任何模型在 NPU 上的表现。",
    ),
    "never-run": Text(
        "Shipped cases of which there is no evidence here",
        "随附用例中此处没有证据者",
    ),
    "unreadable": Text(
        "Directories that are no evidence: something in them is not what was recorded",
        "不构成证据的目录:其中内容与记录不符",
    ),
    "below": Text("Cells that do not work yet", "尚不可用的单元"),
    "everything": Text("Every shipped case has evidence here.", "所有随附用例此处均有证据。"),
    "history-lead": Text(
        "Every run of a cell: its level on the day of the run, and how much of its limit the closest criterion used. 1 "
        "is the limit.",
        "每个单元的历次运行:运行当日的等级,以及最接近阈值的准则用去了阈值的多少。1 即阈值。",
    ),
    "digest": Text("Bundle", "证据包"),
    "revision": Text("Revision", "代码版本"),
    "power-lead": Text(
        "Faults were planted in the real subject, one at a time, and correct runs were made beside them. A gate that "
        "has never refused anything may be a gate that cannot.",
        "在真实被测实现中逐一植入缺陷,同时运行正确的对照。从未拒绝过任何东西的关卡,也许根本不会拒绝。",
    ),
    "rule": Text("Rule", "规则"),
    "rate": Text("Rate", "比例"),
    "interval": Text("95 % interval", "95 % 置信区间"),
    "study": Text("the whole study", "完整研究"),
    "no-study": Text("No study was handed to this site.", "本站未附检出能力研究。"),
    "check-lead": Text(
        "A certificate is a view of a bundle. The bundle holds every step in full precision, and every number on these "
        "pages is computed from it again, without MindSpore or PyTorch.",
        "证书只是证据包的视图。证据包以全精度保存每一步,本站所有数字都可由其重新计算,无需 MindSpore 或 PyTorch。",
    ),
    "verify": Text("Check a bundle offline", "离线核验证据包"),
    "again": Text("Run it again", "重新运行"),
    "machine": Text("The same table for machines", "供程序读取的同一张表"),
    "dark": Text("Dark", "深色"),
    "light": Text("Light", "浅色"),
    "english-pages": Text("Certificates are in English.", "证书页为英文。"),
}
