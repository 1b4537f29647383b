"""Made-up fingerprints, of data sets of many kinds."""

from __future__ import annotations

from dataclasses import replace

from medsegdiff.planning.fingerprint import Fingerprint

BRAIN = Fingerprint(
    name="brain",
    dims=3,
    labels={0: "background", 1: "nucleus"},
    channels=("MR",),
    raters=1,
    cases=40,
    patients=40,
    photographs=False,
    stacks=False,
    shape=(180, 220, 180),
    largest=(200, 256, 200),
    spacing=(1.0, 1.0, 1.0),
    finest=(1.0, 1.0, 1.0),
    extent=(40.0, 50.0, 30.0),
    thickness=12.0,
    share=0.01,
    present={1: 40},
    folds={1: 5},
    ordered=(False, False, False),
    sides=False,
    intensity=((100.0, 20.0, 40.0, 180.0),),
    darkest=0.0,
)
HEART = replace(
    BRAIN,
    labels={0: "background", 1: "right ventricle", 2: "left ventricle"},
    shape=(216, 256, 9),
    largest=(260, 300, 18),
    spacing=(1.5, 1.5, 10.0),
    finest=(1.4, 1.4, 5.0),
    ordered=(True, False, False),
    sides=True,
)
CT = replace(
    BRAIN,
    channels=("CT",),
    shape=(512, 512, 90),
    largest=(512, 512, 400),
    spacing=(0.8, 0.8, 5.0),
    finest=(0.7, 0.7, 1.5),
    intensity=((40.0, 60.0, -90.0, 250.0),),
    darkest=-1000.0,
)
PHOTOGRAPH = replace(
    BRAIN,
    dims=2,
    channels=("red", "green", "blue"),
    photographs=True,
    shape=(800, 540),
    largest=(800, 540),
    spacing=(1.0, 1.0),
    finest=(1.0, 1.0),
    extent=(500.0, 380.0),
    thickness=180.0,
    ordered=(False, False),
    intensity=((100.0, 20.0, 40.0, 180.0),) * 3,
)
VESSELS = replace(PHOTOGRAPH, shape=(999, 960), largest=(999, 960), thickness=5.0)
NODULES = replace(
    BRAIN, raters=4, shape=(64, 64, 5), largest=(64, 64, 40), stacks=False, labels={0: "b", 1: "n"}
)
TINY = replace(BRAIN, shape=(16, 16, 16), largest=(16, 16, 16))
ALL = {
    "brain": BRAIN,
    "heart": HEART,
    "ct": CT,
    "photograph": PHOTOGRAPH,
    "vessels": VESSELS,
    "nodules": NODULES,
    "tiny": TINY,
}
