from __future__ import annotations

import subprocess
import sys


def test_data_sets_and_transforms_are_usable_after_the_import():
    code = (
        "from vaebench.data.io.torchvision_import import import_torchvision as load\n"
        "t = load(); assert load() is t\n"
        "import torchvision.transforms.v2, torchvision.utils\n"
        "print(t.datasets.FakeData(size=1)[0][0].size, t.datasets.MNIST.resources[0][0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "(224, 224) train-images-idx3-ubyte.gz\n", done.stderr


def test_torchvision_is_not_imported_for_files_that_are_there():
    code = (
        "import sys\n"
        "from vaebench.data.digits import Digits\n"
        "import vaebench.data.mnist, vaebench.data.cifar10, vaebench.data.omniglot, vaebench.data.images\n"
        "Digits()\n"
        "print('torchvision' in sys.modules, 'sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "False False\n", done.stderr
