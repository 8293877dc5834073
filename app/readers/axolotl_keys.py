"""What Axolotl's keys do to memory, as of 0.19.0 (``axolotl config-schema``)."""

from __future__ import annotations

from collections.abc import Mapping

from app.readers.reading import Effect
from app.readers.section import Unmodelled
from app.readers.values import names

MORE_GPUS = "divides a training between GPUs, and one GPU by itself is planned"

MOVED = {
    "max_packed_sequence_len": "sequence_len with sample_packing: true",
    "rope_scaling": "model_config, with rope_scaling below it",
    "s2_attention": "nothing in its place",
    "flash_attn_rms_norm": "nothing in its place",
    "dpo_use_logits_to_keep": "nothing in its place",
    "dpo_generate_during_eval": "nothing in its place",
    "dpo_norm_loss": "nothing in its place",
    "rpo_alpha": "nothing in its place",
}
"""Keys that Axolotl 0.19 itself refuses where they are set, and what it has in their place."""

FP32: Mapping[str, tuple[Effect, str]] = {
    "float32": ("more", "keeps weights in float32; they are planned in bfloat16"),
    "fp16": ("either", "trains in float16; bfloat16 is planned"),
    "float16": ("either", "keeps weights in float16; bfloat16 is planned"),
    "bfloat16": ("less", "trains adapters in bfloat16; they are planned in float32"),
    "fp8": ("either", "trains in float8; bfloat16 is planned"),
}

OPTIMIZERS: Mapping[str, Unmodelled] = {
    "optimi_adamw": Unmodelled("either", "keeps its moments as it chooses"),
    "ao_adamw_4bit": Unmodelled("less", "keeps its moments in 4 bit"),
    "ao_adamw_8bit": Unmodelled("less", "keeps its moments in 8 bit"),
    "ao_adamw_fp8": Unmodelled("less", "keeps its moments in 8 bit"),
    "adopt_adamw": Unmodelled("either", "keeps its moments as it chooses"),
    "adamc": Unmodelled("either", "keeps its moments as it chooses"),
    "came_pytorch": Unmodelled("less", "keeps factored moments"),
    "muon": Unmodelled("less", "keeps one moment of a matrix"),
    "dion": Unmodelled("either", "keeps one moment and a low rank"),
    "sinkgd": Unmodelled("less", "keeps no moments"),
    "polora": Unmodelled("either", "keeps its moments as it chooses"),
    "flash_adamw": Unmodelled("less", "keeps its state compressed"),
    "flash_adam": Unmodelled("less", "keeps its state compressed"),
    "flash_sgd": Unmodelled("less", "keeps its state compressed"),
    "flash_sgdw": Unmodelled("less", "keeps its state compressed"),
    "flash_lion": Unmodelled("less", "keeps its state compressed"),
    "q_galore_adamw8bit": Unmodelled("less", "keeps its moments in a low rank of 8 bit"),
    "lion_pytorch": Unmodelled("less", "keeps one moment"),
}
"""Optimizers beside those of transformers."""

FUSED_SHARE = 0.5
"""Most of a plan that Axolotl's LoRA kernels can save: they hold fewer widths of a layer, and as many weights, logits
and hidden states."""
KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel")
_KERNEL = Unmodelled("less", "its fused kernel holds less than is planned", most=FUSED_SHARE)

UNMODELLED: Mapping[str, Unmodelled] = {
    "deepspeed": Unmodelled("either", f"DeepSpeed {MORE_GPUS}"),
    "deepcompile": Unmodelled("either", "compiles the step"),
    "fsdp": Unmodelled("either", f"FSDP {MORE_GPUS}", (None, [])),
    "fsdp_config": Unmodelled("either", f"FSDP {MORE_GPUS}", (None, {})),
    "dp_shard_size": Unmodelled("either", MORE_GPUS, (None, 1)),
    "dp_replicate_size": Unmodelled("either", MORE_GPUS, (None, 1)),
    "sequence_parallel_degree": Unmodelled("less", MORE_GPUS, (None, 1)),
    "context_parallel_size": Unmodelled("less", MORE_GPUS, (None, 1)),
    "tensor_parallel_size": Unmodelled("less", MORE_GPUS, (None, 1)),
    "device_map": Unmodelled("either", MORE_GPUS, (None, "auto", "")),
    "expert_parallel_size": Unmodelled("less", MORE_GPUS, (None, 1)),
    "selective_checkpointing": Unmodelled("more", "keeps some tensors that checkpointing recomputes"),
    "activation_offloading": Unmodelled("less", "moves saved activations to the host"),
    "layer_offloading": Unmodelled("less", "moves frozen layers to the host"),
    "ple_cpu_offload": Unmodelled("less", "moves per-layer embeddings to the host"),
    "relora_cpu_offload": Unmodelled("less", "moves weights to the host"),
    "relora": Unmodelled("more", "merges adapters into the weights from time to time"),
    "tiled_mlp": Unmodelled("less", "computes the MLP in pieces of the sequence"),
    "lora_mlp_kernel": _KERNEL,
    "lora_qkv_kernel": _KERNEL,
    "lora_o_kernel": _KERNEL,
    "lora_embedding_kernel": _KERNEL,
    "large_head_attention": Unmodelled("less", "another attention kernel is used"),
    "flash_attn_cross_entropy": Unmodelled("less", "the loss holds less than is planned"),
    "flash_attn_fuse_mlp": Unmodelled("less", "the fused MLP holds less than is planned"),
    "peft_use_dora": Unmodelled("more", "DoRA computes a weight norm of each adapted linear"),
    "peft_layer_replication": Unmodelled("more", "makes the model deeper"),
    "peft_layers_to_transform": Unmodelled("less", "adapts some layers only"),
    "peft_layers_pattern": Unmodelled("less", "adapts some layers only"),
    "peft_trainable_token_indices": Unmodelled("more", "trains rows of the embedding"),
    "peft_autocast_adapter_dtype": Unmodelled("less", "keeps adapters in 16 bit", (None, True)),
    "lora_target_parameters": Unmodelled("more", "adapts parameters that are no modules"),
    "lora_rank_pattern": Unmodelled("either", "gives modules ranks of their own", (None, {})),
    "lora_on_cpu": Unmodelled("less", "loads the adapters on the CPU"),
    "unfrozen_parameters": Unmodelled("less", "trains some parameters only", (None, [])),
    "embeddings_skip_upcast": Unmodelled("less", "keeps embeddings in 16 bit"),
    "fp32_norms": Unmodelled("more", "keeps norms in float32"),
    "gptq": Unmodelled("either", "GPTQ weights are not planned"),
    "bnb_config_kwargs": Unmodelled("either", "quantises with settings that are not read", (None, {})),
    "model_quantization_config": Unmodelled("either", "quantises in a format that is not read"),
    "model_quantization_config_kwargs": Unmodelled("either", "quantises in a format that is not read", (None, {})),
    "quantize_moe_experts": Unmodelled("less", "quantises the experts while they load"),
    "qat": Unmodelled("more", "fake quantisation holds copies of the weights", (None, {})),
    "use_onebitllms": Unmodelled("either", "one-bit weights are not planned"),
    "use_kernels": Unmodelled("less", "kernels of the Hub hold less than is planned"),
    "torch_compile": Unmodelled("either", "a compiled model keeps other tensors", (None, False, "auto")),
    "optim_target_modules": Unmodelled("less", "keeps low-rank optimizer state"),
    "auto_find_batch_size": Unmodelled("less", "halves the batch size for as long as it does not fit"),
    "eval_sequence_len": Unmodelled("either", "evaluates at a length of its own"),
    "do_causal_lm_eval": Unmodelled("more", "generates in an evaluation"),
    "do_bench_eval": Unmodelled("more", "generates in an evaluation"),
    "generate_samples": Unmodelled("more", "generates in an evaluation"),
    "neftune_noise_alpha": Unmodelled("more", "adds noise of the embeddings' size"),
    "noisy_embedding_alpha": Unmodelled("more", "adds noise of the embeddings' size"),
    "model_config": Unmodelled("either", "changes the model's own config", (None, {})),
    "overrides_of_model_config": Unmodelled("either", "changes the model's own config", (None, {})),
    "model_kwargs": Unmodelled("either", "loads the model with settings that are not read", (None, {})),
    "overrides_of_model_kwargs": Unmodelled("either", "loads the model with settings that are not read", (None, {})),
    "pad_to_multiple_of": Unmodelled("more", "pads every batch further", (None, 1, 8, 64)),
    "gc_steps": Unmodelled("less", "gives cached memory back between steps"),
    "torch_empty_cache_steps": Unmodelled("less", "gives cached memory back between steps"),
    "gc_collect_steps": Unmodelled("less", "gives cached memory back between steps"),
    "max_memory": Unmodelled("either", "limits what a GPU is given", (None, {})),
    "gpu_memory_limit": Unmodelled("either", "limits what a GPU is given"),
    "reward_model": Unmodelled("either", "trains a reward model"),
    "process_reward_model": Unmodelled("either", "trains a reward model"),
    "num_labels": Unmodelled("either", "trains a classifier"),
    "use_eaft": Unmodelled("more", "a loss that reads all logits"),
    "resize_token_embeddings_to_32x": Unmodelled("more", "makes the embedding larger"),
    "lisa_n_layers": Unmodelled("less", "trains some layers at a time", (None, 0)),
    "image_size": Unmodelled("more", "images are not planned"),
    "freeze_mm_modules": Unmodelled("either", "multimodal models are not planned"),
    "use_pose": Unmodelled("less", "skips positions within a short sequence"),
    "merge_lora": Unmodelled("either", "merges adapters, and does not train"),
}

NO_MEMORY = names(
    "strict resume_from_checkpoint auto_resume_from_checkpoints mean_resizing_embeddings shrink_embeddings "
    "reinit_weights trainer_cls trl vllm ebft quantization dynamic_checkpoint center_rewards_coefficient "
    "dpo_use_weighting dpo_label_smoothing precompute_ref_log_probs dpo_use_liger_kernel dpo_padding_free "
    "dpo_loss_type dpo_loss_weights datasets shuffle_merged_datasets shuffle_before_merging_datasets "
    "dataset_prepared_path dataset_shard_num dataset_shard_idx skip_prepare_dataset num_dataset_shards_to_save "
    "pretraining_dataset dataset_processes dataset_num_proc dataset_exact_deduplication dataset_keep_in_memory "
    "dataloader_pin_memory dataloader_num_workers dataloader_prefetch_factor dataloader_drop_last accelerator_config "
    "remove_unused_columns push_dataset_to_hub hf_use_auth_token device world_size local_rank ddp seed ddp_timeout "
    "ddp_bucket_cap_mb ddp_broadcast_buffers ddp_find_unused_parameters eval_causal_lm_metrics bench_dataset "
    "bench_split metric_for_best_model greater_is_better loss_watchdog_threshold loss_watchdog_patience fp8_config "
    "fp8_enable_fsdp_float8_all_gather tf32 gradient_checkpointing_kwargs excess_length_strategy min_sample_len "
    "max_prompt_len sample_packing_group_size sample_packing_bin_size sample_packing_sequentially "
    "sample_packing_mp_start_method eval_sample_packing curriculum_sampling multipack_real_batches "
    "pose_split_on_token_ids pose_max_context_len pose_num_chunks pretrain_multipack_buffer_size "
    "pretrain_multipack_attn pretraining_sample_concatenation streaming streaming_multipack_buffer_size "
    "flex_attn_compile_kwargs flash_optimum gemma4_hybrid_attn_impl flash_attn_d512 sdpa_varlen fused_attn_kernel "
    "experts_implementation scaling_softmax scaling_softmax_factor scaling_softmax_bias "
    "chunked_cross_entropy_num_chunks eaft_alpha eaft_k tiled_mlp_num_shards tiled_mlp_use_original_mlp "
    "llama4_linearized_experts fsdp_version fp32_norm_classes fsdp_final_state_dict_type heads_k_stride "
    "ring_attn_func added_tokens_overrides torch_compile_backend torch_compile_mode torch_compile_options max_steps "
    "warmup_steps warmup_ratio save_steps saves_per_epoch save_strategy save_total_limit save_first_step "
    "logging_steps early_stopping_patience load_best_model_at_end save_only_model use_tensorboard profiler_steps "
    "profiler_steps_start include_tokens_per_second include_tkps orpo_alpha simpo_gamma cpo_alpha "
    "kto_desirable_weight kto_undesirable_weight rl_beta low_cpu_mem_usage chat_template chat_template_jinja "
    "chat_template_kwargs eot_tokens default_system_message fix_untrained_tokens is_preprocess preprocess_iterable "
    "total_num_tokens total_supervised_tokens sample_packing_eff_est axolotl_config_path is_falcon_derived_model "
    "is_llama_derived_model is_mistral_derived_model is_qwen_derived_model num_generation_samples "
    "generation_max_new_tokens generation_temperature generation_top_p generation_top_k generation_prompt_ratio "
    "generation_do_sample base_model_config cls_model_config tokenizer_config tokenizer_use_fast tokenizer_legacy "
    "tokenizer_use_mistral_common tokenizer_type processor_type processor_kwargs tokenizer_save_jinja_files "
    "trust_remote_code experimental_skip_move_to_device output_dir hub_model_id hub_strategy hub_revision "
    "save_safetensors lora_model_dir lora_alpha lora_fan_in_fan_out lora_alpha_pattern peft peft_use_rslora "
    "peft_init_lora_weights peft_ensure_weight_tying qlora_sharded_model_loading loraplus_lr_ratio "
    "loraplus_lr_embedding merge_method relora_prune_ratio relora_prune_method train_on_inputs group_by_length "
    "learning_rate embedding_lr embedding_lr_scale weight_decay optim_args torchdistx_path lr_scheduler "
    "lr_scheduler_kwargs lr_quadratic_warmup cosine_min_lr_ratio cosine_constant_lr_ratio lr_div_factor lr_groups "
    "adam_epsilon adam_epsilon2 adam_beta1 adam_beta2 adam_beta3 dion_lr dion_momentum dion_rank_fraction "
    "dion_rank_multiple_of qgalore_rank qgalore_update_proj_gap qgalore_scale qgalore_proj_type qgalore_proj_quant "
    "qgalore_proj_bits qgalore_proj_group_size qgalore_cos_threshold qgalore_gamma_proj qgalore_queue_size "
    "max_grad_norm num_epochs jagged_restart_steps jagged_restart_warmup_steps jagged_restart_anneal_steps dpo_beta "
    "evaluation_strategy eval_table_size eval_max_new_tokens model_type type_of_model wandb_mode wandb_project "
    "wandb_entity wandb_name wandb_run_id wandb_log_model wandb_watch use_wandb mlflow_tracking_uri "
    "mlflow_experiment_name mlflow_run_name hf_mlflow_log_artifacts use_mlflow comet_api_key comet_workspace "
    "comet_project_name comet_experiment_key comet_mode comet_online use_comet lisa_step_interval "
    "lisa_layers_attribute use_ray ray_run_name ray_num_workers resources_per_worker image_resize_algorithm "
    "gradio_title gradio_share gradio_server_name gradio_server_port gradio_max_new_tokens gradio_temperature "
    "liger_rope liger_rms_norm liger_rms_norm_gated liger_layer_norm liger_swiglu liger_glu_activation "
    "liger_cross_entropy liger_fused_linear_cross_entropy cut_cross_entropy liger_use_token_scaling "
    "comet_experiment_config otel_metrics_host otel_metrics_port role_boundaries "
    "trackio_project_name trackio_run_name trackio_space_id "
    "use_otel_metrics use_trackio tokens special_tokens"
)
"""Keys without effect on the memory of a step (new tokens add a row of the embedding each), or read with another one
beside them."""
