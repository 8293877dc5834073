"""What LLaMA-Factory's keys do to memory, as of 0.9.5 (its ``hparams``)."""

from __future__ import annotations

from collections.abc import Mapping

from app.readers.reading import Effect
from app.readers.section import Unmodelled
from app.readers.values import names

ATTENTION = {
    "auto": "",
    "disabled": "eager",
    "sdpa": "sdpa",
    "fa2": "flash_attention_2",
    "fa3": "flash_attention_2",
}
"""``flash_attn`` as a job's ``attn_implementation``; nothing where the stack chooses."""

OPTIMIZER_SWITCHES: Mapping[str, tuple[Effect, str]] = {
    "use_galore": ("less", "GaLore keeps its moments in a low rank"),
    "use_apollo": ("less", "APOLLO keeps its moments in a low rank"),
    "use_badam": ("less", "BAdam trains one block at a time"),
    "use_adam_mini": ("less", "Adam-mini keeps one second moment a block"),
    "use_muon": ("less", "Muon keeps one moment of a matrix"),
}

UNMODELLED: Mapping[str, Unmodelled] = {
    "adapter_name_or_path": Unmodelled("either", "goes on with an adapter, whose rank is its own"),
    "adapter_folder": Unmodelled("either", "goes on with an adapter, whose rank is its own"),
    "resize_vocab": Unmodelled("more", "makes the embedding larger"),
    "rope_scaling": Unmodelled("either", "scales RoPE as it is told, not as the stack does"),
    "shift_attn": Unmodelled("less", "attends within groups"),
    "mixture_of_depths": Unmodelled("either", "skips tokens in layers"),
    "upcast_layernorm": Unmodelled("more", "keeps norms in float32"),
    "upcast_lmhead_output": Unmodelled("more", "keeps the logits in float32"),
    "train_from_scratch": Unmodelled("either", "trains from random weights"),
    "quantization_device_map": Unmodelled("either", "divides the model between GPUs, and one GPU by itself is planned"),
    "use_kt": Unmodelled("less", "KTransformers keeps experts on the host"),
    "use_mca": Unmodelled("either", "trains with Megatron, which divides the model between GPUs"),
    "use_hyper_parallel": Unmodelled("either", "divides a training between GPUs"),
    "use_dora": Unmodelled("more", "DoRA computes a weight norm of each adapted linear"),
    "use_llama_pro": Unmodelled("less", "trains expanded blocks only"),
    "use_asft_loss": Unmodelled("more", "a loss that needs a reference model"),
    "use_eaft_loss": Unmodelled("more", "a loss that reads all logits"),
    "use_dft_loss": Unmodelled("more", "a loss that reads all logits"),
    "compute_accuracy": Unmodelled("more", "an evaluation keeps its predictions"),
    "predict_with_generate": Unmodelled("more", "generates in an evaluation"),
    "fp8": Unmodelled("either", "trains in float8; bfloat16 is planned"),
    "fp8_enable_fsdp_float8_all_gather": Unmodelled("either", "trains in float8 between GPUs"),
    "ray_num_workers": Unmodelled("either", "divides a training between GPUs", (None, 1)),
    "use_v1_kernels": Unmodelled("less", "its kernels hold less than is planned"),
    "ref_model": Unmodelled("more", "holds a second model"),
    "reward_model": Unmodelled("more", "holds a second model"),
    "pissa_init": Unmodelled("more", "computes singular values while it loads"),
    "freeze_vision_tower": Unmodelled("more", "multimodal models are not planned", (None, True)),
    "freeze_multi_modal_projector": Unmodelled("more", "multimodal models are not planned", (None, True)),
    "freeze_language_model": Unmodelled("less", "does not train the language model"),
    "enable_torch_profiler": Unmodelled("more", "records what the step allocates"),
}

NO_MEMORY = names(
    "cache_dir use_fast_tokenizer split_special_tokens add_tokens add_special_tokens new_special_tokens_config "
    "init_special_tokens low_cpu_mem_usage moe_aux_loss_coef use_reentrant_gc infer_backend offload_folder "
    "use_kv_cache infer_dtype hf_hub_token ms_hub_token om_hub_token print_param_status trust_remote_code "
    "image_max_pixels "
    "image_min_pixels image_do_pan_and_scan crop_to_patches video_max_pixels video_min_pixels video_fps video_maxlen "
    "use_audio_in_video audio_sampling_rate export_dir export_size export_device export_quantization_bit "
    "export_quantization_dataset export_quantization_nsamples export_quantization_maxlen export_legacy_format "
    "export_hub_model_id vllm_maxlen vllm_gpu_util vllm_enforce_eager vllm_max_lora_rank vllm_config sglang_maxlen "
    "sglang_mem_fraction sglang_tp_size sglang_config sglang_lora_backend kt_weight_path kt_expert_checkpoint_path "
    "kt_use_lora_experts kt_lora_expert_num kt_lora_expert_intermediate_size template dataset dataset_dir media_dir "
    "train_on_prompt mask_history streaming buffer_size mix_strategy interleave_probs overwrite_cache "
    "preprocessing_batch_size preprocessing_num_workers max_samples eval_num_beams ignore_pad_token_for_loss "
    "eval_on_each_dataset tool_format default_system enable_thinking preserve_thinking tokenized_path "
    "data_shared_file_system freeze_trainable_layers freeze_trainable_modules freeze_extra_modules lora_alpha "
    "loraplus_lr_ratio loraplus_lr_embedding use_rslora pissa_iter pissa_convert create_new_adapter module_dropout "
    "oft_rank oft_block_size oft_target pref_beta pref_ftx pref_bco_weight pref_loss dpo_label_smoothing "
    "kto_chosen_weight kto_rejected_weight simpo_gamma ppo_buffer_size ppo_epochs ppo_score_norm ppo_target "
    "ppo_whiten_rewards ref_model_adapters ref_model_quantization_bit reward_model_adapters "
    "reward_model_quantization_bit reward_model_type ld_alpha galore_target galore_rank galore_update_interval "
    "galore_scale galore_proj_type galore_layerwise apollo_target apollo_rank apollo_update_interval apollo_scale "
    "apollo_proj apollo_proj_type apollo_scale_type apollo_layerwise apollo_scale_front badam_mode badam_start_block "
    "badam_switch_mode badam_switch_interval badam_update_ratio badam_mask_mode badam_verbose use_swanlab "
    "swanlab_project swanlab_workspace swanlab_run_name swanlab_mode swanlab_api_key swanlab_logdir "
    "swanlab_lark_webhook_url swanlab_lark_secret hyper_parallel_args asft_alpha eaft_alpha disable_shuffling "
    "early_stopping_steps plot_loss include_effective_tokens_per_second ray_init_kwargs master_addr master_port "
    "profiler_output_dir profiler_wait_steps profiler_warmup_steps profiler_active_steps profiler_repeat "
    "profiler_record_shapes profiler_profile_memory profiler_with_stack profile_modules fp8_backend "
    "do_sample temperature top_p top_k num_beams max_length max_new_tokens repetition_penalty length_penalty "
    "skip_special_tokens generation_max_length generation_num_beams generation_config sortish_sampler "
    "ray_run_name ray_storage_path placement_strategy resources_per_worker loss_scale"
)
"""Keys without effect on the memory of a training step, or read with another one beside them."""
