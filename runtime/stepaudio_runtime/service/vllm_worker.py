"""vLLM's workers of a pod that does not lead its group, started as a module of ours like `vllm_server`."""

from stepaudio_runtime.health.tether import follow_parent
from stepaudio_runtime.service.objects import look_seldom

follow_parent()
look_seldom()

if __name__ == "__main__":
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    cli_env_setup()
    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args()
    validate_parsed_serve_args(arguments)
    ServeSubcommand.cmd(arguments)
