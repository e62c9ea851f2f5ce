"""BibTeX at the end of a page: of the program, and of the works that its figures come from."""

from collections.abc import Iterable

from lowrank import __version__

from .page import escape

PROGRAM = f"""@software{{lowrank,
  title   = {{lowrank: LoRA, NF4 and Llama 2, written out by hand}},
  author  = {{{{The lowrank authors}}}},
  version = {{{__version__}}},
  license = {{Apache-2.0}},
}}"""
WORKS = {
    "lora": """@article{hu2021lora,
  title   = {LoRA: Low-Rank Adaptation of Large Language Models},
  author  = {Hu, Edward J. and Shen, Yelong and Wallis, Phillip and Allen-Zhu, Zeyuan and Li, Yuanzhi and Wang, Shean
             and Wang, Lu and Chen, Weizhu},
  journal = {arXiv:2106.09685},
  year    = {2021},
}""",
    "qlora": """@article{dettmers2023qlora,
  title   = {QLoRA: Efficient Finetuning of Quantized LLMs},
  author  = {Dettmers, Tim and Pagnoni, Artidoro and Holtzman, Ari and Zettlemoyer, Luke},
  journal = {arXiv:2305.14314},
  year    = {2023},
}""",
    "levels": """@article{yoshida2023nf4,
  title   = {NF4 Isn't Information Theoretically Optimal (and that's Good)},
  author  = {Yoshida, Davis},
  journal = {arXiv:2306.06965},
  year    = {2023},
}""",
    "microscaling": """@article{rouhani2023microscaling,
  title   = {Microscaling Data Formats for Deep Learning},
  author  = {Rouhani, Bita Darvish and Zhao, Ritchie and More, Ankit and others},
  journal = {arXiv:2310.10537},
  year    = {2023},
}""",
    "hawq": """@inproceedings{dong2019hawq,
  title     = {HAWQ: Hessian AWare Quantization of Neural Networks with Mixed-Precision},
  author    = {Dong, Zhen and Yao, Zhewei and Gholami, Amir and Mahoney, Michael W. and Keutzer, Kurt},
  booktitle = {International Conference on Computer Vision},
  note      = {arXiv:1905.03696},
  year      = {2019},
}""",
    "squeezellm": """@inproceedings{kim2024squeezellm,
  title     = {SqueezeLLM: Dense-and-Sparse Quantization},
  author    = {Kim, Sehoon and Hooper, Coleman and Gholami, Amir and Dong, Zhen and Li, Xiuyu and Shen, Sheng
               and Mahoney, Michael W. and Keutzer, Kurt},
  booktitle = {International Conference on Machine Learning},
  note      = {arXiv:2306.07629},
  year      = {2024},
}""",
    "intruders": """@article{shuttleworth2024illusion,
  title   = {LoRA vs Full Fine-tuning: An Illusion of Equivalence},
  author  = {Shuttleworth, Reece and Andreas, Jacob and Torralba, Antonio and Sharma, Pratyusha},
  journal = {arXiv:2410.21228},
  year    = {2024},
}""",
    "influence": """@inproceedings{pruthi2020tracin,
  title     = {Estimating Training Data Influence by Tracing Gradient Descent},
  author    = {Pruthi, Garima and Liu, Frederick and Kale, Satyen and Sundararajan, Mukund},
  booktitle = {Advances in Neural Information Processing Systems},
  note      = {arXiv:2002.08484},
  year      = {2020},
}""",
    "less": """@inproceedings{xia2024less,
  title     = {LESS: Selecting Influential Data for Targeted Instruction Tuning},
  author    = {Xia, Mengzhou and Malladi, Sadhika and Gururangan, Suchin and Arora, Sanjeev and Chen, Danqi},
  booktitle = {International Conference on Machine Learning},
  note      = {arXiv:2402.04333},
  year      = {2024},
}""",
    "trak": """@inproceedings{park2023trak,
  title     = {TRAK: Attributing Model Behavior at Scale},
  author    = {Park, Sung Min and Georgiev, Kristian and Ilyas, Andrew and Leclerc, Guillaume and Madry, Aleksander},
  booktitle = {International Conference on Machine Learning},
  note      = {arXiv:2303.14186},
  year      = {2023},
}""",
    "datamodels": """@inproceedings{ilyas2022datamodels,
  title     = {Datamodels: Predicting Predictions from Training Data},
  author    = {Ilyas, Andrew and Park, Sung Min and Engstrom, Logan and Leclerc, Guillaume and Madry, Aleksander},
  booktitle = {International Conference on Machine Learning},
  note      = {arXiv:2202.00622},
  year      = {2022},
}""",
    "llama2": """@article{touvron2023llama2,
  title   = {Llama 2: Open Foundation and Fine-Tuned Chat Models},
  author  = {Touvron, Hugo and Martin, Louis and Stone, Kevin and others},
  journal = {arXiv:2307.09288},
  year    = {2023},
}""",
}
STYLE = ".cite pre { font-size: .8125rem; white-space: pre-wrap; overflow-wrap: anywhere; }"


def citation(works: Iterable[str] = ()) -> str:
    """A closed part of a page, which opens to the BibTeX of the program and of `works`, keys of `WORKS`."""
    entries = "\n\n".join([PROGRAM, *(WORKS[work] for work in works)])
    return f'<details class="cite">\n<summary>To cite this page</summary>\n<pre>{escape(entries)}</pre>\n</details>'
