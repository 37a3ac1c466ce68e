"""`vllm bench throughput` without the rest of vLLM's command line, which needs a web server.

Run by the engine's interpreter; takes the options of `vllm bench throughput`.
"""

from vllm.benchmarks.throughput import add_cli_args, main

try:
    from vllm.utils.argparse_utils import FlexibleArgumentParser
except ImportError:
    from vllm.utils import FlexibleArgumentParser

if __name__ == "__main__":
    parser = FlexibleArgumentParser(description=__doc__)
    add_cli_args(parser)
    main(parser.parse_args())
