"""Made-up pages in German and Chinese, and questions over them: each asks for two facts that only one page has both of.

Other pages have one of the two, so a leg that reads half of a question finds the wrong page.
"""

from dataclasses import dataclass

from bench.retrieval.yardstick import Yardstick

PAGES = 76


@dataclass(frozen=True)
class Language:
    """Lists of 13, 11, 9 and 7 values: of two lists every page has another pair. `{number}` is the page's own."""

    name: str
    page: str
    questions: tuple[str, ...]
    place: str
    material: str
    person: str
    thing: str

    def yardstick(self) -> Yardstick:
        lists = {name: getattr(self, name).split() for name in ("place", "material", "person", "thing")}
        texts, questions = {}, []
        for n in range(PAGES):
            facts = {name: values[n % len(values)] for name, values in lists.items()}
            texts[str(n)] = self.page.format(number=1000 + 37 * n, **facts)
            questions += [(question.format(**facts), str(n)) for question in self.questions]
        return Yardstick(self.name, texts, questions)


GERMAN = Language(
    "made-up pages, German",
    "In der Werkstatt von {place} steht seit Jahren eine {thing} aus {material}, die zuletzt von {person} "
    "überholt wurde. Die Anlage trägt die Nummer {number} und wird zweimal im Jahr gereinigt.",
    (
        "Wer hat die Maschine aus {material} überholt, die in {place} zu finden ist?",
        "Welche Nummer hat das Gerät in {place}, das {person} instand gesetzt hat?",
        "Wo befindet sich das Gerät aus {material}, um das sich {person} gekümmert hat?",
    ),
    place="Husum Goslar Passau Weimar Bautzen Emden Lindau Coburg Celle Worms Görlitz Stade Trier",
    material="Kupfer Messing Holz Glas Gusseisen Aluminium Bronze Keramik Stahl Zinn Kunststoff",
    person="Brandt Yilmaz Okonkwo Lehmann Novak Petersen Rossi Haddad Kowalski",
    thing="Pumpe Presse Waage Säge Mühle Fräse Drehbank",
)
CHINESE = Language(
    "made-up pages, Chinese",
    "{place}车间里有一台{material}制的{thing},使用多年,最近一次由{person}检修。设备编号为{number},每年清洗两次。",
    (
        "{place}那台{material}机器是谁修理的?",
        "{person}在{place}修过的设备,编号是多少?",
        "{person}负责检修的{material}设备放在哪里?",
    ),
    place="苏州 洛阳 桂林 大理 绍兴 开封 泉州 敦煌 西宁 常德 宜昌 嘉兴 赣州",
    material="紫铜 黄铜 木材 玻璃 铸铁 铝合金 青铜 陶瓷 钢材 锡 塑料",
    person="王建国 李秀英 张伟 刘洋 陈静 杨帆 赵磊 黄丽 周敏",
    thing="水泵 压机 天平 锯床 磨机 铣床 车床",
)
