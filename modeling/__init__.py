"""Models, their sizes and their costs. Importing this package makes the Auto classes know the LSTM."""

from transformers import AutoConfig, AutoModelForCausalLM

from .configuration_abc_lstm import AbcLstmConfig
from .modeling_abc_lstm import AbcLstmForCausalLM

AutoConfig.register(AbcLstmConfig.model_type, AbcLstmConfig)
AutoModelForCausalLM.register(AbcLstmConfig, AbcLstmForCausalLM)
# A saved LSTM carries its two files, so that trust_remote_code=True loads it where this project is not installed.
AbcLstmConfig.register_for_auto_class()
AbcLstmForCausalLM.register_for_auto_class("AutoModelForCausalLM")

__all__ = ["AbcLstmConfig", "AbcLstmForCausalLM"]
