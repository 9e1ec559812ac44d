"""The Chinese of the titles of criteria and of standards. A test requires one for every shipped title."""

from collections.abc import Mapping

CRITERIA: Mapping[str, str] = {
    # official
    "The published rule and ceilings of MindSpore Transformers": "MindSpore Transformers 公布的规则与上限",
    "Every run took all of its steps": "每次运行都完成全部步数",
    "No run produced a number that is not finite": "没有运行产生非有限数",
    "Every run read the case's own weights and batches": "每次运行都读取用例自己的权重与批次",
    "Both sides were fed the same tokens in every step": "双方每一步输入的词元相同",
    "The reference's model holds the case's weights, tensor by tensor": "参考实现的模型逐张量持有用例的权重",
    "The subject's model holds the case's weights, tensor by tensor": "被测实现的模型逐张量持有用例的权重",
    "The reference is configured as the case says, field by field": "参考实现逐字段按用例配置",
    "The subject is configured as the case says, field by field": "被测实现逐字段按用例配置",
    "The reference repeats bit for bit in a fresh process": "参考实现在全新进程中逐位重现",
    "The reference's grad norm repeats bit for bit": "参考实现的 grad norm 逐位重现",
    "The reference's final parameters repeat bit for bit": "参考实现的最终参数逐位重现",
    "The subject repeats bit for bit in a fresh process": "被测实现在全新进程中逐位重现",
    "The subject's grad norm repeats bit for bit": "被测实现的 grad norm 逐位重现",
    "The subject's final parameters repeat bit for bit": "被测实现的最终参数逐位重现",
    "A run that was saved and taken up in a fresh process goes on bit for bit": "保存后在全新进程中续训的运行逐位一致",
    "The grad norm of such a run goes on bit for bit": "续训运行的 grad norm 逐位一致",
    "Both sides counted the same target tokens in every step": "双方每一步的目标词元数相同",
    "Learning rate of every step": "每一步的学习率",
    "Learning rate 0 leaves both sides with the same parameters": "学习率为 0 时双方参数相同",
    "The subject's loss falls": "被测实现的 loss 下降",
    "The subject's loss goes down over the whole run": "被测实现的 loss 在整个运行中下降",
    "No step's loss jumps above those before it": "没有一步的 loss 突增",
    "Loss of the first step": "首步 loss",
    "Mean error of the loss": "loss 的平均误差",
    "Mean relative error of the global grad norm": "全局 grad norm 的平均相对误差",
    "The comparison is long enough for the published rule": "对比步数足以满足公布的规则",
    # strict-fp32, strict-bf16 and the probes
    "What two correct float32 implementations keep, learning rate at most 1e-4": (
        "两个正确的 float32 实现所能保持的精度,学习率不超过 1e-4"
    ),
    "What two correct float32 implementations keep, learning rate at most 1e-4, with an oracle of the first step": (
        "两个正确的 float32 实现所能保持的精度,学习率不超过 1e-4,精确解只算首步"
    ),
    "What two correct implementations keep with bfloat16 matrix products, learning rate at most 1e-4": (
        "两个正确实现在 bfloat16 矩阵乘下所能保持的精度,学习率不超过 1e-4"
    ),
    "What two correct implementations keep over 1000 steps with bfloat16 matrix products, learning rate at most 1e-4": (
        "两个正确实现在 bfloat16 矩阵乘下、1000 步之内所能保持的精度,学习率不超过 1e-4"
    ),
    "What two correct implementations keep of a first gradient and of updates with bfloat16 matrix products": (
        "两个正确实现在 bfloat16 矩阵乘下首步梯度与更新所能保持的精度"
    ),
    "Grad norm of the first step": "首步 grad norm",
    "Loss in every step at learning rate 0": "学习率为 0 时每一步的 loss",
    "Grad norm in every step at learning rate 0": "学习率为 0 时每一步的 grad norm",
    "Loss of every step": "每一步的 loss",
    "Signed bias of the loss": "loss 的有符号偏置",
    "Grad norm of every step": "每一步的 grad norm",
    "Signed bias of the grad norm": "grad norm 的有符号偏置",
    "Gradients of every step, in errors of the reference": "每一步的梯度(以参考实现的误差为单位)",
    "Updates of every step, in errors of the reference": "每一步的更新(以参考实现的误差为单位)",
    "Gradients of examined steps, in errors of the reference, as root mean square": (
        "详查步的梯度(以参考实现的误差为单位),均方根"
    ),
    "Gradients of examined steps, in errors of the reference, at worst": "详查步的梯度(以参考实现的误差为单位),最大值",
    "Updates of examined steps, in errors of the reference, as root mean square": (
        "详查步的更新(以参考实现的误差为单位),均方根"
    ),
    "Updates of examined steps, in errors of the reference, at worst": "详查步的更新(以参考实现的误差为单位),最大值",
    "Change of each parameter over the run, in errors of the reference, as root mean square": (
        "每个参数在整个运行中的变化(以参考实现的误差为单位),均方根"
    ),
    "Change of each parameter over the run, in errors of the reference, at worst": (
        "每个参数在整个运行中的变化(以参考实现的误差为单位),最大值"
    ),
    "Error of each first gradient along the weights": "每个首步梯度沿权重方向的误差",
    "Error of the optimizer alone along the weights": "仅优化器沿权重方向的误差",
    "Error of each parameter's change along the weights": "每个参数的变化沿权重方向的误差",
    "Error of the length of each first gradient": "每个首步梯度长度的误差",
    "Error of the length of each update by the optimizer alone": "仅优化器每次更新长度的误差",
    "Error of the length of each parameter's change": "每个参数变化长度的误差",
    "Small and large elements of each first gradient, each decade by itself, in errors of the reference": (
        "每个首步梯度的大小元素,按数量级分别比较(以参考实现的误差为单位)"
    ),
    "Different values among the elements of each first gradient": "每个首步梯度的元素中不同值的个数",
    "Elements of each first gradient that are zero": "每个首步梯度中为零的元素",
    "Elements of each first gradient below the normal numbers": "每个首步梯度中低于正规数的元素",
    "Final parameters after a resumption": "断点恢复后的最终参数",
    "Final parameters, tensor by tensor": "最终参数,逐张量",
    "Error of each parameter's first gradient, in errors of the reference, on average": (
        "各参数首步梯度的误差(以参考实现的误差为单位),平均"
    ),
    "Error of each parameter's first gradient, in errors of the reference, as root mean square": (
        "各参数首步梯度的误差(以参考实现的误差为单位),均方根"
    ),
    "Error of each parameter's first gradient, in errors of the reference, at worst": (
        "各参数首步梯度的误差(以参考实现的误差为单位),最差"
    ),
    "Each parameter's first gradient against the exact one": "各参数首步梯度与精确梯度之差",
    "Error of the optimizer alone on given gradients, in errors of the reference, on average": (
        "给定梯度下优化器单独的误差(以参考实现的误差为单位),平均"
    ),
    "Error of the optimizer alone on given gradients, in errors of the reference, as root mean square": (
        "给定梯度下优化器单独的误差(以参考实现的误差为单位),均方根"
    ),
    "Error of the optimizer alone on given gradients, in errors of the reference, at worst": (
        "给定梯度下优化器单独的误差(以参考实现的误差为单位),最差"
    ),
    "Error of each step's loss, in errors of the reference, on average": (
        "每一步 loss 的误差(以参考实现的误差为单位),平均"
    ),
    "Error of each step's loss, in errors of the reference, as root mean square": (
        "每一步 loss 的误差(以参考实现的误差为单位),均方根"
    ),
    "Error of each step's loss, in errors of the reference, at worst": "每一步 loss 的误差(以参考实现的误差为单位),最差",
    "The recorded gradients are those that training uses": "记录的梯度即训练所用的梯度",
    "Loss of the first step, in errors of the reference": "首步 loss(以参考实现的误差为单位)",
    "Grad norm of the first step, in errors of the reference": "首步 grad norm(以参考实现的误差为单位)",
    "Loss in every step at learning rate 0, in errors of the reference": (
        "学习率为 0 时每一步的 loss(以参考实现的误差为单位)"
    ),
    "Grad norm in every step at learning rate 0, in errors of the reference": (
        "学习率为 0 时每一步的 grad norm(以参考实现的误差为单位)"
    ),
    "Loss of every step, in errors of the reference": "每一步的 loss(以参考实现的误差为单位)",
    "Mean error of the loss, in errors of the reference": "loss 的平均误差(以参考实现的误差为单位)",
    "Signed bias of the loss, in standard errors": "loss 的有符号偏置(以标准误为单位)",
    "Grad norm of every step, in errors of the reference": "每一步的 grad norm(以参考实现的误差为单位)",
    "Mean error of the grad norm, in errors of the reference": "grad norm 的平均误差(以参考实现的误差为单位)",
    "Signed bias of the grad norm, in standard errors": "grad norm 的有符号偏置(以标准误为单位)",
    "Error of the loss against the exact one, on average, in errors of the reference": (
        "loss 相对精确解的误差,平均(以参考实现的误差为单位)"
    ),
    "Error of the loss against the exact one, at worst, in errors of the reference": (
        "loss 相对精确解的误差,最差(以参考实现的误差为单位)"
    ),
    "Error of the grad norm against the exact one, on average, in errors of the reference": (
        "grad norm 相对精确解的误差,平均(以参考实现的误差为单位)"
    ),
    "Error of the grad norm against the exact one, at worst, in errors of the reference": (
        "grad norm 相对精确解的误差,最差(以参考实现的误差为单位)"
    ),
    "The reference's own error of the loss is small enough to measure with": "参考实现自身的 loss 误差足够小,可用于测量",
    "The reference's own error of the grad norm is small enough to measure with": (
        "参考实现自身的 grad norm 误差足够小,可用于测量"
    ),
    "Largest error of a row or column of a first gradient relative to its size, in errors of the reference": (
        "首步梯度一行或一列的最大相对误差(以参考实现的误差为单位)"
    ),
    # layout-fp32
    "What spreading a float32 run over ranks may change, against the same subject in one process": (
        "float32 运行切分到多个进程后允许的变化,与同一被测实现的单进程运行对比"
    ),
    "Loss of the first step, over ranks and in one process": "首步 loss,多进程与单进程对比",
    "Each parameter's first gradient, over ranks and in one process": "各参数首步梯度,多进程与单进程对比",
    "Grad norm of the first step, over ranks and in one process": "首步 grad norm,多进程与单进程对比",
    "Target tokens that the loss was divided by, over ranks and in one process": (
        "loss 所除的目标词元数,多进程与单进程对比"
    ),
    "Loss of every step, over ranks and in one process": "每一步的 loss,多进程与单进程对比",
    "Grad norm of every step, over ranks and in one process": "每一步的 grad norm,多进程与单进程对比",
    "Final parameters, over ranks and in one process": "最终参数,多进程与单进程对比",
    # inference
    "The published rule and ceiling of MindSpore Transformers, for a model that is asked": (
        "MindSpore Transformers 公布的推理规则与上限"
    ),
    "Answers of two correct float32 implementations": "两个正确的 float32 实现的推理结果",
    "Every run answered all that it was asked": "每次运行都完成全部推理",
    "Every run read the case's own weights and questions": "每次运行都读取用例自己的权重与输入",
    "Both sides scored the same documents": "双方对相同的文档评分",
    "The reference's model holds the weights that are asked, tensor by tensor": "参考实现的模型逐张量持有推理所用的权重",
    "The subject's model holds the weights that are asked, tensor by tensor": "被测实现的模型逐张量持有推理所用的权重",
    "The reference scores and answers the same in a fresh process, bit for bit": (
        "参考实现在全新进程中的评分与输出逐位相同"
    ),
    "The reference's logits and tokens repeat bit for bit": "参考实现的 logits 与词元逐位重现",
    "The subject's scores repeat bit for bit in a fresh process": "被测实现的评分在全新进程中逐位重现",
    "The subject's logits and tokens repeat bit for bit, also those that are drawn by a seed": (
        "被测实现的 logits 与词元逐位重现,包括按种子采样的词元"
    ),
    "The subject predicts text better than the frequencies of its tokens do": "被测实现对文本的预测优于词元频率",
    "Every score is within 0.4 % of the reference's": "每项得分与参考实现相差不超过 0.4 %",
    "The evaluation is large enough to show that every score is within 0.4 %": "评测规模足以表明每项得分相差不超过 0.4 %",
    "The subject's logits are as close to the exact ones as the reference's": (
        "被测实现的 logits 与精确值的接近程度同参考实现一样"
    ),
    "The subject predicts what is exact, at every position": "被测实现在每个位置的预测都与精确预测一致",
    "After a prompt that is read at once into the cache, the subject predicts what is exact": (
        "提示一次性写入缓存后,被测实现的预测与精确预测一致"
    ),
    "Where the subject holds another token for the best, it is a near tie": "被测实现首选其他词元之处为近似平局",
    "Both sides hold the same token for the best at nearly every position": "双方在几乎每个位置首选相同的词元",
    "Greedy continuations are the oracle's, or part from it at a near tie": "贪心续写与精确解相同,或在近似平局处分开",
    "A continuation of 256 tokens was compared to its end": "256 个词元的续写对比到末尾",
    "Token after token by a cache, the subject computes what it computes at once": (
        "被测实现用缓存逐词元计算与一次性计算的结果一致"
    ),
    "Token after token by a cache, the subject's logits are as close to the exact ones as the reference's": (
        "用缓存逐词元计算时,被测实现的 logits 与精确值的接近程度同参考实现一样"
    ),
    "After prompts of every length around a border, and in the decode steps after them, the logits are exact": (
        "在长度取各边界前后的提示之后,以及其后的解码步中,logits 与精确值一致"
    ),
    "A prompt among others, padded on the left, has the logits that it has by itself": (
        "左侧填充的批次中的提示与单独计算的 logits 相同"
    ),
    "Continuations end before a stop token where the reference's do": "续写在与参考实现相同之处止于停止词元前",
    "Tokens that are drawn are those of Hugging Face's temperature, top-k and top-p by the same random numbers": (
        "采样的词元与 Hugging Face 的 temperature、top-k、top-p 在相同随机数下一致"
    ),
    "Conversations become the reference's tokens": "对话转换成的词元与参考实现相同",
    "The subject's model reads the tokens of the evaluation, and no others": "被测实现的模型只读入评测的词元",
    "The models of both sides read the same tokens": "双方的模型读入相同的词元",
    "Every document's log-likelihood is the reference's": "每个文档的对数似然与参考实现一致",
    # rules of others
    "A rule of others: the guide of msprobe": "其他团队的规则:msprobe 指南",
    "Rule of msprobe: mean relative error of the loss": "msprobe 的规则:loss 的平均相对误差",
    "A rule of others: the continuous integration of MindSpeed-LLM": "其他团队的规则:MindSpeed-LLM 的持续集成",
    "Rule of MindSpeed-LLM: loss of every step": "MindSpeed-LLM 的规则:每一步的 loss",
    "Rule of MindSpeed-LLM: mean relative error of the grad norm": "MindSpeed-LLM 的规则:grad norm 的平均相对误差",
    "A rule of others: the comparison of engines of verl": "其他团队的规则:verl 的引擎比对",
    "Rule of verl: loss of every step": "verl 的规则:每一步的 loss",
    "Rule of verl: grad norm of every step": "verl 的规则:每一步的 grad norm",
    "A rule of others: the verification cards of Megatron-Bridge": "其他团队的规则:Megatron-Bridge 的验证卡",
    "Rule of Megatron-Bridge: loss of every step": "Megatron-Bridge 的规则:每一步的 loss",
    "A rule of others: the convergence test of Liger": "其他团队的规则:Liger 的收敛测试",
    "Rule of Liger: loss of every step": "Liger 的规则:每一步的 loss",
    "Rule of Liger: enough steps": "Liger 的规则:步数足够",
    "A rule of others: the numerics check of torchtitan": "其他团队的规则:torchtitan 的数值检查",
    "Rule of torchtitan: the same bits of every loss": "torchtitan 的规则:每个 loss 逐位相同",
    "Rule of torchtitan: the same bits of every grad norm": "torchtitan 的规则:每个 grad norm 逐位相同",
}
