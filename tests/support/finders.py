"""Tiny random SAM 2 and finders of the real classes, as folders."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessorPil,
    PreTrainedTokenizerFast,
    Sam2VideoConfig,
    Sam2VideoModel,
    ViTImageProcessorPil,
)

SIDE = 128
# The numbers of BERT's vocabulary, of which GroundingDINO knows the marks.
BERT_WORDS = {"[PAD]": 0, "[CLS]": 101, "[SEP]": 102, "[UNK]": 100, ".": 1012}
BERT_WORDS |= {"a": 1, "red": 2, "circle": 3}


def sam2() -> Sam2VideoModel:
    """Pictures of 128 px; some sizes are fixed in the class."""
    torch.manual_seed(0)
    hiera = dict(
        model_type="sam2_hiera_det_model",
        hidden_size=8,
        image_size=[SIDE, SIDE],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads=1,
        num_attention_heads_per_stage=[1, 1, 2, 4],
        global_attention_blocks=[3],
        window_size_per_stage=[8, 4, 4, 4],
        window_positional_embedding_background_size=[4, 4],
    )
    vision = dict(
        model_type="sam2_vision_model",
        image_size=SIDE,
        fpn_hidden_size=128,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
        backbone_config=hiera,
    )
    decoder = dict(hidden_size=128, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16)
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config=dict(hidden_size=128, image_size=SIDE, mask_input_channels=4),
        mask_decoder_config=decoder,
        image_size=SIDE,
        memory_attention_hidden_size=128,
        memory_attention_num_layers=1,
        memory_attention_num_attention_heads=1,
        memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[8, 8],
        memory_encoder_hidden_size=128,
        memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=32,
        memory_fuser_num_layers=1,
        num_maskmem=3,
    )
    model = Sam2VideoModel(config).eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(6 if weights.ndim > 1 else 1)  # or a prompt would not move the masks
    return model


def finder(kind: str, folder: Path) -> Path:
    """A folder as the hub has it, of grounding-dino, owlv2 or clipseg."""
    torch.manual_seed(0)
    model, images = {"grounding-dino": _dino, "owlv2": _owl, "clipseg": _clipseg}[kind]()
    model.eval().save_pretrained(folder)
    images.save_pretrained(folder)
    _tokenizer(kind == "grounding-dino").save_pretrained(folder)
    return folder


def _tokenizer(is_bert: bool) -> PreTrainedTokenizerFast:
    numbers = BERT_WORDS if is_bert else {w: i for i, w in enumerate(BERT_WORDS)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(w, numbers[w]) for w in ("[CLS]", "[SEP]")]
    )
    inputs = ["input_ids", "attention_mask"] + ["token_type_ids"] * is_bert
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", model_input_names=inputs
    )


LAYERS = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
WORDS = dict(vocab_size=8, pad_token_id=0, bos_token_id=1, eos_token_id=2)


def _dino():
    swin = dict(
        model_type="swin",
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_indices=[2, 3, 4],
    )
    config = GroundingDinoConfig(
        backbone_config=swin,
        text_config=dict(model_type="bert", **LAYERS, vocab_size=1013, max_position_embeddings=16),
        num_queries=5,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        d_model=32,
        max_text_len=16,
    )
    size = {"shortest_edge": 64, "longest_edge": 96}
    return GroundingDinoForObjectDetection(config), GroundingDinoImageProcessorPil(size=size)


def _owl():
    config = Owlv2Config(
        text_config=LAYERS | WORDS | dict(max_position_embeddings=16),
        vision_config=LAYERS | dict(image_size=64, patch_size=16),
        projection_dim=16,
    )
    size = {"height": 64, "width": 64}
    return Owlv2ForObjectDetection(config), Owlv2ImageProcessorPil(size=size)


def _clipseg():
    config = CLIPSegConfig(
        text_config=LAYERS | WORDS | dict(max_position_embeddings=16),
        vision_config=LAYERS | dict(image_size=64, patch_size=16),
        projection_dim=16,
        reduce_dim=16,
        extract_layers=[0, 1],
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    size = {"height": 64, "width": 64}
    return CLIPSegForImageSegmentation(config), ViTImageProcessorPil(size=size)
