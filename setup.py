"""Packaging: the two packages, the bundled data, and the configs as package data."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="graphcl",
    version="0.1.0",
    description="Graph contrastive learning: views, InfoNCE and momentum queues, on PyTorch Geometric.",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=[
        *find_packages(include=["augment", "augment.*", "graphcl", "graphcl.*"]),
        *("graphcl.configs", "graphcl.benchmarks"),
    ],
    package_dir={"graphcl.configs": "configs", "graphcl.benchmarks": "benchmarks"},
    package_data={
        "graphcl.configs": ["*.yaml", "benchmarks/*.yaml"],
        "graphcl.data": ["bundled/*", "bundled/*/*", "bundled/*/*/*"],
        "graphcl": ["py.typed", "pretrained/*/*"],
        "augment": ["py.typed"],
    },
    install_requires=[
        "torch>=2.6",
        "torch-geometric>=2.6",
        "lightning-fabric>=2.4",
        "safetensors>=0.4",
        "numpy>=1.26",
        "scikit-learn>=1.4",
        "scipy>=1.11",
        "joblib>=1.3",
        "threadpoolctl>=3.2",
        "networkx>=3.2",
        "rdkit>=2024.3.1",
        "ogb>=1.3.6",
        "pandas>=2.1",
        "pyarrow>=15",
        "matplotlib>=3.8",
        "pydantic>=2.6",
        "pyyaml>=6.0",
        "typer>=0.12",
        "rich>=13",
    ],
    extras_require={
        "dev": [
            *("pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100", "ruff>=0.5", "mypy>=1.10", "types-PyYAML"),
            "numba>=0.60",
        ],
        "fast": ["numba>=0.60"],
        "tensorboard": ["tensorboard>=2.15"],
    },
    entry_points={"console_scripts": ["graphcl=graphcl.cli:main"]},
    classifiers=["License :: OSI Approved :: MIT License", "Programming Language :: Python :: 3"],
)
