"""The Chinese texts of the pages, by their English texts; sentences of evidence are in `harness.report.sentences`."""

from collections.abc import Mapping

from markupsafe import Markup, escape

from harness.report.sentences import translated

CHINESE: Mapping[str, str] = {
    "Levels of models": "模型等级",
    "Skip to the table of levels": "跳到等级表",
    "Sections": "章节",
    "Levels": "等级",
    "Versions": "版本配套",
    "Differences": "差异",
    "How far a model that is trained by MindSpore is from the same model trained by PyTorch: relative differences of loss "
    "and grad norm, and the largest error of a first gradient in errors of the reference, both against float64.": (
        "由 MindSpore 训练的模型与由 PyTorch 训练的同一模型相差多少:loss 与 grad norm 的相对差异,以及首步梯度的最大误差"
        "(以参考实现的误差为单位,两者均相对 float64)。"
    ),
    "Loss, step 1": "loss,第 1 步",
    "Loss, largest": "loss,最大",
    "Grad norm, step 1": "grad norm,第 1 步",
    "Grad norm, largest": "grad norm,最大",
    "Gradient": "梯度",
    "Time": "用时",
    "Memory of a run": "单次运行内存",
    "Not certified": "未认证",
    "History": "历史",
    "Detection power": "检出能力",
    "Check it yourself": "自行核验",
    "As of": "截至",
    "Unsigned evidence: no signature that was verified states who is responsible for it, and whoever had its files could "
    "have changed them.": "未签名的证据:没有经过验证的签名说明由谁负责,任何持有其文件的人都可能改动过。",
    "Each level is computed from evidence: every training step and every inference output of the model on MindSpore is "
    "compared with PyTorch and Hugging Face, by limits that were fixed before the run. A level holds for one scope "
    "alone: model, task, device, layout, precision, mode and versions. A result on a CPU is never a level on an NPU.": (
        "每个等级都由证据计算得出:模型在 MindSpore 上的每个训练步和每个推理输出都与 PyTorch、Hugging Face"
        " 对比,并按运行前固定的阈值判定。等级只对一个适用范围有效:模型、任务、设备、并行切分、精度、执行模式和版本。CPU"
        " 上的结果绝不作为 NPU 的等级。"
    ),
    "Stated: the level that MindSpore Transformers gives on its own pages, with the page and the day on which it was "
    "read. Computed: the level that the evidence here carries.": (
        "声明等级:MindSpore Transformers 在其页面上给出的等级,附来源页面与读取日期。计算等级:此处证据所支持的等级。"
    ),
    "Stated level": "声明等级",
    "Computed level": "计算等级",
    "Stated": "声明",
    "What the next level lacks": "距下一等级所缺",
    "Next level": "下一等级",
    "Devices and layout": "设备与并行切分",
    "not stated": "未声明",
    "not measured": "未测量",
    "Planted after the criteria": "在判据之后植入",
    "Planted before a criterion": "在某判据之前植入",
    "By older criteria": "由更早的判据拒绝",
    "Faults of others": "他人的缺陷",
    "no evidence": "无证据",
    "Show all": "显示全部",
    "more": "项未列出",
    "For programs and readers of news": "供程序与订阅者使用",
    "Each set of versions is a cell of its own.": "每组版本配套都是一个独立单元。",
    "Versions that belong together, as stated": "声明的版本配套关系",
    "not used by this implementation": "此实现未使用",
    "Skip to the level": "跳到等级",
    "Skip to the table of versions": "跳到版本配套表",
    "The first four columns are what MindSpore Transformers states to belong together. The others are what was certified here with that MindSpore: the level, the day of the run and its evidence. A certificate on a CPU states nothing about CANN, HDK or an NPU.": (
        "前四列是 MindSpore Transformers 声明的版本配套。其余列是此处用该 MindSpore 认证的结果:等级、运行日期及其证据。"
        "CPU 上的证书不说明 CANN、HDK 或 NPU 的任何情况。"
    ),
    "What was certified with each set of versions": "每组版本配套认证了什么",
    "Scope": "适用范围",
    "The newest run is below the level of an earlier run.": "最新一次运行低于此前的等级。",
    "Measured on a CPU. This is not a level on an NPU: this page shows nothing about the model on Ascend.": (
        "在 CPU 上测得。这不是 NPU 上的等级:本页不说明该模型在昇腾上的任何表现。"
    ),
    "Nothing: the highest level is reached.": "无:已达到最高等级。",
    "Evidence of other cells of this size. It holds for those cells, and not for this one:": (
        "同一规格其他单元的证据。它只对那些单元有效,对本单元无效:"
    ),
    "The level holds for this and for nothing else. What no run recorded is not stated.": (
        "等级只对以下范围有效。运行未记录的内容标为未声明。"
    ),
    "no end: this level needs no recent run": "无期限:此等级不要求近期运行",
    "Changes of the level": "等级变化",
    "No run of this cell has reached a level.": "此单元尚无运行达到任何等级。",
    "A level that MindSpore Transformers states for this cell. It is no evidence.": (
        "MindSpore Transformers 为此单元声明的等级。声明不是证据。"
    ),
    "Read on": "读取日期",
    "A run of this cell on its device makes the first evidence:": "在其设备上运行此单元,即得到第一份证据:",
    "Cut": "裁剪",
    "Weights": "权重",
    "Implementation": "实现",
    "Device": "设备",
    "Chip": "芯片",
    "Layout": "并行切分",
    "Recompute": "重计算",
    "Precision": "精度",
    "Execution mode": "执行模式",
    "whole model": "完整模型",
    "trained weights": "训练得到的权重",
    "drawn weights": "随机生成的权重",
    "recompute": "重计算",
    "no recompute": "不重计算",
    "pretraining": "预训练",
    "supervised fine-tuning": "全参微调",
    "LoRA fine-tuning": "LoRA 微调",
    "any one limit suffices": "满足任一阈值即可",
    "met": "满足",
    "not met": "未满足",
    "reached": "已达到",
    "not reached": "未达到",
    "No level": "无等级",
    "completed": "已完成",
    "not run": "未运行",
    "not collected": "未采集",
    "Alignment": "对齐",
    "Optimizer": "优化器",
    "First step and gradients": "首步与梯度",
    "Logits": "logits",
    "Cache and batch": "缓存与批次",
    "Trajectory": "训练过程",
    "Convergence": "收敛",
    "Length": "步数",
    "Others": "其他",
    "compared step by step": "逐步对比",
    "a repeat, compared bit for bit": "重复运行,逐位对比",
    "learning rate 0: no error can grow": "学习率 0:误差无法增长",
    "saved after half the steps and resumed in a fresh process": "在一半步数处保存,并在全新进程中续训",
    "the exact result: the same mathematics in float64": "精确解:同样的数学运算,float64",
    "the exact result: the same mathematics in float64, without a cache": "精确解:同样的数学运算,float64,不用缓存",
    "first gradients, and the optimizer alone": "首步梯度,以及单独的优化器",
    "first gradients and updates, exact": "首步梯度与更新,精确",
    "the subject in one process: its layout must not change the numbers": "单进程的被测实现:切分不得改变数值",
    "first gradients of the subject in one process": "单进程被测实现的首步梯度",
    "weights moved by one unit in the last place": "权重移动末位一个单位",
    "trains the weights for inference": "训练推理所用的权重",
    "scores every document, then generates": "对每个文档评分,然后生成",
    "Repeats this run.": "重复此次运行。",
    "Judges these runs again.": "重新判定这些运行。",
    "Names the module, gradient or check that differs first.": "指出最先不同的模块、梯度或检查。",
    "Checks every byte and recomputes everything.": "核验每个字节并全部重新计算。",
    "Shows the level on a day, with the verified signatures.": "显示某日的等级与已核验的签名。",
    "Compares two traces, of this bundle or of any other.": "对比两条轨迹,来自本证据包或任何其他证据包。",
    "Initial weights": "初始权重",
    "Token batches": "词元批次",
    "Corpus": "语料",
    "Corpus digest": "语料摘要",
    "Corpus size": "语料规模",
    "Tokenizer": "分词器",
    "Epochs": "轮数",
    "Target tokens": "目标词元",
    "Ids reached": "覆盖的词元编号",
    "Positions reached": "覆盖的位置",
    "Vocabulary": "词表",
    "Rows": "行",
    "Learning rate": "学习率",
    "Clipping": "梯度裁剪",
    "Model": "模型",
    "Size": "规格",
    "Task": "任务",
    "Architecture": "架构",
    "Devices": "设备",
    "Level": "等级",
    "Run on": "运行日期",
    "Valid until": "有效期至",
    "Closest to its limit": "最接近阈值",
    "certificate": "证书",
    "training": "训练",
    "fine-tuning": "微调",
    "Conversations": "对话",
    "The first rows, as both sides read them. Only the marked tokens count in the loss: the answers, each with the token "
    "that ends it.": ("前几行数据,与双方读取的一致。只有标出的 token 计入 loss:回答,以及结束每个回答的 token。"),
    "one process": "单进程",
    "Cell": "单元",
    "not recorded": "未记录",
    "none on a CPU": "CPU 上无",
    "criteria pass": "项准则通过",
    "No cell here was run on an NPU, so this page states nothing about a model on an NPU.": "此处没有任何单元在 NPU 上运行过,因此本页不说明任何模型在 NPU 上的表现。",
    "Shipped cases without evidence here": "此处没有证据的随附用例",
    "Directories that are not evidence: their content differs from what was recorded": "不构成证据的目录:其内容与记录不符",
    "Cells that do not work yet": "尚不可用的单元",
    "Cells whose newest run is below the level of an earlier run": "最新一次运行低于此前等级的单元",
    "before": "此前",
    "Every shipped case has evidence here.": "所有随附用例此处均有证据。",
    "Every run of a cell: its level on the day of the run, and how much of its limit the closest "
    "criterion used. 1 is the limit.": "每个单元的历次运行:运行当日的等级,以及最接近阈值的准则占其阈值的比例。1 表示恰好达到阈值。",
    "Bundle": "证据包",
    "Revision": "代码版本",
    "Faults were planted in the real subject, one at a time, and correct runs were made for comparison. A gate that "
    "has never rejected a run may be unable to reject one.": "在真实被测实现中逐一植入缺陷,并另作正确的运行以供对照。从未拒绝过任何运行的关卡,也许根本无法拒绝。",
    "Rule": "规则",
    "Rate": "比例",
    "95 % interval": "95 % 置信区间",
    "This site has no study of detection power.": "本站没有检出能力研究。",
    "A certificate is a view of a bundle. The bundle holds every step and every output in full precision. Every number "
    "on these pages can be recomputed from it, without MindSpore or PyTorch.": (
        "证书只是证据包的视图。证据包以全精度保存每一步和每个输出。本站所有数字都可由其重新计算,无需 MindSpore 或 PyTorch。"
    ),
    "Check a bundle offline": "离线核验证据包",
    "Run it again": "重新运行",
    "The same table as JSON": "JSON 格式的同一张表",
    "Released": "Released(发布级)",
    "Validated": "Validated(验证级)",
    "Preliminary": "Preliminary(初步级)",
    "Untested": "Untested(未测试级)",
    "Community": "Community(社区级)",
    "none": "无等级",
    "Skip to the verdict": "跳到结论",
    "Verdict": "结论",
    "Curves": "曲线",
    "Exact result": "精确解",
    "Determinism": "确定性",
    "Parameters": "参数",
    "Criteria": "准则",
    "Provenance": "来源",
    "Repeat": "复现",
    "Raw numbers": "原始数据",
    "What went wrong": "出错之处",
    "Why this level": "等级依据",
    "State": "状态",
    "Requirement": "要求",
    "Result": "实际情况",
    "Statements": "声明",
    "Signed by": "签署人",
    "Role": "角色",
    "What": "内容",
    "Signed on": "签署日期",
    "Remark": "备注",
    "The floor, for comparison": "噪声底,供对照",
    "Relative difference": "相对差",
    "Subject": "被测实现",
    "Floor": "噪声底",
    "Subject / floor": "被测实现 / 噪声底",
    "Compared with the exact result": "与精确解对比",
    "Statistic": "统计量",
    "Reference’s error": "参考实现的误差",
    "Subject’s error": "被测实现的误差",
    "Ratio": "比值",
    "Allowed ratio": "允许的比值",
    "Used": "已用",
    "First gradients, parameter by parameter": "第一步梯度,逐参数",
    "Parameter": "参数名",
    "Used of the limit": "阈值已用",
    "Side": "一方",
    "Two runs": "两次运行",
    "Where": "位置",
    "Final parameters": "最终参数",
    "Tensor": "张量",
    "‖difference‖ / ‖reference‖": "‖差‖ / ‖参考实现‖",
    "largest / rms": "最大 / 均方根",
    "Every criterion": "全部准则",
    "Outcome": "判定结果",
    "Criterion and its reason": "准则及其理由",
    "Measured": "实测",
    "Allowed": "允许",
    "Inputs": "输入",
    "Case": "用例",
    "Source": "来源",
    "Source code": "源码",
    "Baseline": "基线",
    "Machine and versions": "机器与版本",
    "Runs": "各次运行",
    "Run": "运行",
    "Purpose": "用途",
    "Ended": "结束",
    "Runner": "运行器",
    "Steps": "步数",
    "Time in steps": "步内用时",
    "after compiling for": "此前编译用时",
    "with at most": "内存峰值",
    "Median step": "单步中位用时",
    "Repeat it": "自行复现",
    "Standards": "标准",
    "Each side ran twice, in fresh processes. Both runs must have the same bits.": (
        "每一方都在全新进程中运行两次。两次结果必须逐位相同。"
    ),
    "The oracle is the same mathematics in float64, with the same weights and tokens; it is also the oracle of a "
    "bfloat16 case. The ratio is the subject’s error divided by the reference’s error, for each step or parameter. The "
    "reference’s error counts as at least half a unit in the last place of float32.": (
        "精确解以 float64 进行同样的数学运算,权重和词元相同;bfloat16 用例也使用这一精确解。比值是每一步或每个"
        "参数上被测实现的误差除以参考实现的误差。参考实现的误差至少按 float32 末位的半个单位计。"
    ),
    "The floor (perturbed repeats of the reference) was not measured in this case.": "此用例未测量噪声底(参考实现的扰动重复运行)。",
    "Every digit that the runs recorded. Reading a number back gives the same bits. Missing numbers are empty.": (
        "运行记录的全部数字位。读回后逐位相同。未记录的数值为空。"
    ),
    "Scores": "得分",
    "Continuations": "续写",
    "With itself": "与自身对比",
    "Both sides score the same documents with lm-eval. A small evaluation cannot show that two models have equal scores, "
    "so each difference has an upper bound, at 95 % confidence, from paired statistics over the documents.": (
        "双方用 lm-eval 对相同的文档评分。小规模评测无法证明两个模型得分相同,因此每个差值都给出上界:"
        "由按文档配对的统计得出,置信度 95 %。"
    ),
    "Documents": "文档数",
    "Reference": "参考实现",
    "Exact": "精确值",
    "Difference": "差值",
    "At most": "上界",
    "Texts": "文本",
    "Last words": "末词预测",
    "Endings": "结尾选择",
    "perplexity per word": "每词困惑度",
    "share of passages whose last word is the greedy one": "末词即为贪心解码结果的段落比例",
    "share of passages whose own ending is the most likely": "原文结尾概率最高的段落比例",
    "Every document on both sides": "双方的每个文档",
    "Difference of every document": "每个文档的差值",
    "The oracle is the same mathematics in float64; it computes each token from all tokens before it, without cache or "
    "padding. The ratio is the subject’s error divided by the reference’s error. The reference’s error counts as at "
    "least half a unit in the last place of float32.": (
        "精确解以 float64 进行同样的数学运算,每个词元都由其之前的全部词元算出,不用缓存和填充。比值是被测实现"
        "的误差除以参考实现的误差。参考实现的误差至少按 float32 末位的半个单位计。"
    ),
    "Row": "行",
    "Divergence, nats": "散度(奈特)",
    "Regret": "遗憾值",
    "Same best token": "首选词元相同",
    "Logits, row by row": "logits,逐行",
    "Divergence is the distance between the subject’s prediction and the exact one at the worst position. Regret is the "
    "exact logit of the best token minus the exact logit of the subject’s best token. It is tiny at a near tie, and 0 if "
    "both have the same best token.": (
        "散度是最差位置上被测实现的预测与精确预测之间的距离。遗憾值是最佳词元的精确 logit 减去被测实现首选词元的"
        "精确 logit。近似平局时极小,首选词元相同时为 0。"
    ),
    "Each prompt is continued greedily, with the most likely token. After the first token that differs, nothing is "
    "compared, because both sides then continue different texts. The oracle’s logits at that token show whether it was "
    "a near tie.": (
        "每个提示都以贪心解码续写,即每次取概率最高的词元。出现第一个不同的词元之后不再比较,因为此后双方续写的已"
        "不是同一段文本。由精确解在该词元处的 logits 可知是否为近似平局。"
    ),
    "reference": "参考实现",
    "subject": "被测实现",
    "Chat template": "对话模板",
    "A side must give the same result in every way: token by token with a cache, in a batch of padded prompts, and again "
    "in a fresh process.": "每一方以不同方式计算的结果必须相同:用缓存逐词元计算、在带填充的批次中计算、在全新进程中重算。",
    "Largest": "最大",
    "inference": "推理",
    "BUNDLE is the directory of this page.": "BUNDLE 是本页所在的目录。",
    "The whole case": "完整用例",
    "Environment variables": "环境变量",
    "Recorded": "录制时间",
    "By": "录制者",
    "Reason": "原因",
    "Recorded on": "录制设备",
    "Signature": "签名",
    "Baseline digest": "基线摘要",
    "Command": "命令",
    "Weights for inference": "推理所用权重",
    "Evaluation": "评测数据",
    "Size of the evaluation": "评测规模",
    "In the loss": "计入损失",
    "Start again with a conversation": "随每段对话重新开始",
    "attention": "注意力",
    "positions": "位置",
    "unknown": "未知",
    "Protection": "隔离",
    "namespaces: the subject's runs could read no run of another side, and no recorded answer of this checkout, in the "
    "working directory or next to the bundle.": (
        "命名空间:被测对象的运行无法读取其他各方的运行,也无法读取本程序目录、工作目录以及证据包旁边已记录的结果。"
    ),
    "order: the subject's runs ended before a run of another side began; they could read recorded answers.": (
        "顺序:其他各方开始运行前,被测对象的运行已全部结束;但它可以读取已记录的结果。"
    ),
    "none: the subject could read the reference's runs.": "无:被测对象可以读取参考实现的运行。",
    "not recorded: an older version made the runs, and the subject could read the reference's runs.": (
        "未记录:由旧版本运行,被测对象可以读取参考实现的运行。"
    ),
    "none: a trainer of its own made the subject's runs, and could read recorded answers.": (
        "无:被测对象的运行由其自身的训练器完成,它可以读取已记录的结果。"
    ),
    "No run of the subject could read what an earlier one left outside of its directory.": (
        "被测对象的任何一次运行都无法读取此前运行在其自身目录之外留下的内容。"
    ),
    "A run of the subject could read what an earlier one left outside of its directory.": (
        "被测对象的运行可以读取此前运行在其自身目录之外留下的内容。"
    ),
    "All runs had the rights of one user on one machine: whoever controls it can record numbers that no run produced. "
    "A signature states who is responsible.": (
        "所有运行都以同一台机器上同一用户的权限进行:控制该机器的人可以记录并非由运行产生的数值。由签名说明谁负责。"
    ),
}


def chinese(text: str) -> str:
    """The Chinese of a text or of a sentence of evidence; the text itself where it has none, as a name or a number."""
    return translated(text, CHINESE) or text


def both(text: str) -> Markup:
    """A text in both languages, of which the style shows one; once where both are the same."""
    if (other := chinese(text)) == text:
        return escape(text)
    return Markup('<span lang="en">{}</span><span lang="zh-CN">{}</span>').format(text, other)


def column(text: str) -> Markup:
    """The name of a cell's column, which the style shows before the cell on a phone, where the table head is hidden."""
    return Markup('data-label="{}" data-label-zh="{}"').format(text, chinese(text))


def label(text: str) -> Markup:
    """A label for screen readers; the script changes it with the language."""
    return Markup('aria-label="{}" data-en="{}" data-zh="{}"').format(text, text, CHINESE[text])
