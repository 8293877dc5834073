"""The keys of transformers' ``TrainingArguments``, which several launchers take as they are: those without effect on
memory, those that are not modelled, and those of other releases.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.readers.section import Section, Unmodelled
from app.readers.values import POSITIVE, names
from estimator.rules import Choice

TRAINING_READ = names(
    "per_device_train_batch_size gradient_accumulation_steps gradient_checkpointing optim bf16 fp16 eval_strategy "
    "per_device_eval_batch_size"
)

TRAINING_NO_MEMORY = names(
    "output_dir num_train_epochs max_steps learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps optim_args "
    "weight_decay adam_beta1 adam_beta2 adam_epsilon average_tokens_across_devices max_grad_norm "
    "gradient_checkpointing_kwargs tf32 liger_kernel_config use_cache logging_strategy logging_steps "
    "logging_first_step log_on_each_node logging_nan_inf_filter include_num_input_tokens_seen log_level "
    "log_level_replica disable_tqdm report_to run_name project trackio_space_id trackio_bucket_id "
    "trackio_static_space_id eval_steps eval_delay eval_on_start eval_do_concat_batches eval_use_gather_object "
    "save_only_model save_strategy save_steps save_on_each_node save_total_limit "
    "enable_jit_checkpoint push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push "
    "hub_revision load_best_model_at_end metric_for_best_model greater_is_better ignore_data_skip "
    "restore_callback_states_from_checkpoint full_determinism seed data_seed accelerator_config dataloader_drop_last "
    "dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor "
    "dataloader_multiprocessing_context dataloader_in_order remove_unused_columns label_names "
    "train_sampling_strategy length_column_name ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers "
    "ddp_static_graph ddp_backend ddp_timeout debug skip_memory_metrics do_train do_eval do_predict "
    "resume_from_checkpoint local_rank batch_eval_metrics torch_compile_backend torch_compile_mode"
)

TRAINING_UNMODELLED: Mapping[str, Unmodelled] = {
    "optim_target_modules": Unmodelled("less", "low-rank optimizer state is not planned"),
    "label_smoothing_factor": Unmodelled("more", "label smoothing needs all logits a second time", (None, 0, 0.0)),
    "bf16_full_eval": Unmodelled("less", "evaluates in bfloat16 weights"),
    "fp16_full_eval": Unmodelled("less", "evaluates in float16 weights"),
    "torch_compile": Unmodelled("either", "a compiled model keeps other tensors than an eager one"),
    "use_liger_kernel": Unmodelled("less", "Liger's kernels hold less than the modules that they replace"),
    "neftune_noise_alpha": Unmodelled("more", "adds noise of the embeddings' size in the forward"),
    "torch_empty_cache_steps": Unmodelled("less", "gives cached memory back between steps"),
    "auto_find_batch_size": Unmodelled("less", "halves the batch size for as long as it does not fit"),
    "prediction_loss_only": Unmodelled("less", "an evaluation then keeps no logits"),
    "eval_accumulation_steps": Unmodelled("less", "moves the logits of an evaluation to the host from time to time"),
    "include_for_metrics": Unmodelled("more", "keeps inputs or logits of a whole evaluation", (None, [])),
    "use_cpu": Unmodelled("less", "trains on the CPU"),
    "parallelism_config": Unmodelled("either", "divides a training between GPUs, and one GPU by itself is planned"),
}

TRAINING_MOVED = {
    "evaluation_strategy": "eval_strategy",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "group_by_length": "train_sampling_strategy: group_by_length",
    "warmup_ratio": "warmup_steps, a fraction of all steps where below 1",
    "no_cuda": "use_cpu",
    "use_legacy_prediction_loop": "nothing in its place",
    "overwrite_output_dir": "nothing in its place",
    "logging_dir": "the environment variable TENSORBOARD_LOGGING_DIR",
    "save_safetensors": "nothing in its place: always so",
    "push_to_hub_model_id": "hub_model_id",
    "activation_checkpointing": "gradient_checkpointing, which transformers 5.23 renames",
    "activation_checkpointing_kwargs": "gradient_checkpointing_kwargs, which transformers 5.23 renames",
}
"""Keys of releases before and after 5.17.0, and what it has in their place."""

TRAINING_BEFORE = names(
    "warmup_ratio overwrite_output_dir logging_dir save_safetensors group_by_length no_cuda "
    "ddp_timeout use_ipex jit_mode_eval half_precision_backend bf16_backend fp16_opt_level use_mps_device "
    "past_index tpu_num_cores tpu_metrics_debug fsdp_min_num_params fsdp_transformer_layer_cls_to_wrap mp_parameters "
    "ray_scope torchdynamo include_inputs_for_metrics include_tokens_per_second eval_use_gather_object "
    "use_legacy_prediction_loop dispatch_batches split_batches hub_private_repo"
)
"""Keys of transformers 4, without effect on memory, for tools that still run with it."""


def evaluation(section: Section, *, batch_default: int) -> None:
    """Whether the run evaluates, and with which batch size: transformers' own keys."""
    asked = section.take("eval_strategy", Choice(("no", "steps", "epoch", False)), None)
    batch = section.take("per_device_eval_batch_size", POSITIVE, None)
    if asked in (None, "no", False):
        return
    if batch is None:
        section.notebook.defaults["per_device_eval_batch_size"] = batch_default
    section.set("per_device_eval_batch_size", batch or batch_default, "per_device_eval_batch_size")
