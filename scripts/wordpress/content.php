<?php
// The media and posts of the demo site.

// 60 images: the photographs in samples/, whole and as parts, with their descriptions in the library.
function demo_media( $samples ) {
	$photographs = glob( "$samples/*.jpg" );
	$alts        = array(
		'alps'   => 'Snow on a row of mountains',
		'cat'    => 'A cat looks into the camera',
		'coffee' => 'IMG_1234.jpg', // a file name, as many libraries have it
		'sheep'  => 'Sheep',
	);
	$parts = array( 'whole' => null, 'left' => array( 0, 0, 0.6, 1 ), 'right' => array( 0.4, 0, 0.6, 1 ), 'middle' => array( 0.2, 0.2, 0.6, 0.6 ) );
	$ids   = array();
	foreach ( $parts as $part => $crop ) {
		foreach ( $photographs as $file ) {
			if ( count( $ids ) >= 60 ) {
				break 2;
			}
			$name         = basename( $file, '.jpg' ) . ( 'whole' === $part ? '' : "-$part" );
			$ids[ $name ] = demo_image( $file, $name, $crop );
			if ( isset( $alts[ $name ] ) ) {
				update_post_meta( $ids[ $name ], '_wp_attachment_image_alt', $alts[ $name ] );
			}
		}
	}
	wp_update_post( array( 'ID' => $ids['boats'], 'post_excerpt' => 'The harbour in May', 'post_content' => 'Taken from the pier.' ) );
	return $ids;
}

function demo_image( $file, $name, $crop ) {
	$image = imagecreatefromjpeg( $file );
	if ( $crop ) {
		$width  = imagesx( $image );
		$height = imagesy( $image );
		$image  = imagecrop( $image, array(
			'x'      => (int) ( $crop[0] * $width ),
			'y'      => (int) ( $crop[1] * $height ),
			'width'  => (int) ( $crop[2] * $width ),
			'height' => (int) ( $crop[3] * $height ),
		) );
	}
	$folder = wp_upload_dir( '2024/05' );
	$path   = $folder['path'] . "/$name.jpg";
	imagejpeg( imagescale( $image, 480 ), $path, 85 );
	$id = wp_insert_attachment( array( 'post_mime_type' => 'image/jpeg', 'post_title' => $name, 'post_status' => 'inherit' ), $path, 0, true );
	wp_update_attachment_metadata( $id, wp_generate_attachment_metadata( $id, $path ) );
	return $id;
}

// Blocks, as the editor of this version saves them

function image_block( $id, $alt, $size = 'full' ) {
	$src = wp_get_attachment_image_src( $id, $size )[0];
	return sprintf(
		"<!-- wp:image {\"id\":%d,\"sizeSlug\":\"%s\",\"linkDestination\":\"none\"} -->\n<figure class=\"wp-block-image size-%s\"><img src=\"%s\" alt=\"%s\" class=\"wp-image-%d\"/></figure>\n<!-- /wp:image -->",
		$id, $size, $size, $src, esc_attr( $alt ), $id
	);
}

function paragraph( $text ) {
	return "<!-- wp:paragraph -->\n<p>$text</p>\n<!-- /wp:paragraph -->";
}

function gallery_block( $ids, $alts ) {
	$images = implode( "\n\n", array_map( 'image_block', $ids, $alts ) );
	return "<!-- wp:gallery {\"linkTo\":\"none\"} -->\n<figure class=\"wp-block-gallery has-nested-images columns-default is-cropped\">$images</figure>\n<!-- /wp:gallery -->";
}

function old_gallery_block( $ids, $alts ) {
	$items = '';
	foreach ( $ids as $n => $id ) {
		$src    = wp_get_attachment_url( $id );
		$items .= sprintf( '<li class="blocks-gallery-item"><figure><img src="%s" alt="%s" data-id="%d" class="wp-image-%d"/></figure></li>', $src, esc_attr( $alts[ $n ] ), $id, $id );
	}
	return sprintf(
		"<!-- wp:gallery {\"ids\":[%s],\"linkTo\":\"none\"} -->\n<figure class=\"wp-block-gallery columns-%d is-cropped\"><ul class=\"blocks-gallery-grid\">%s</ul></figure>\n<!-- /wp:gallery -->",
		implode( ',', $ids ), min( 3, count( $ids ) ), $items
	);
}

function cover_block( $id, $alt, $text, $fixed = false ) {
	$src   = wp_get_attachment_url( $id );
	$json  = $fixed ? ',"hasParallax":true' : '';
	$image = $fixed
		? sprintf( '<div role="img" class="wp-block-cover__image-background wp-image-%d has-parallax" style="background-position:50%% 50%%;background-image:url(%s)"></div>', $id, $src )
		: sprintf( '<img class="wp-block-cover__image-background wp-image-%d" alt="%s" src="%s" data-object-fit="cover"/>', $id, esc_attr( $alt ), $src );
	return sprintf(
		"<!-- wp:cover {\"url\":\"%s\",\"id\":%d%s,\"dimRatio\":50} -->\n<div class=\"wp-block-cover%s\"><span aria-hidden=\"true\" class=\"wp-block-cover__background has-background-dim\"></span>%s<div class=\"wp-block-cover__inner-container\"><!-- wp:paragraph {\"align\":\"center\",\"fontSize\":\"large\"} -->\n<p class=\"has-text-align-center has-large-font-size\">%s</p>\n<!-- /wp:paragraph --></div></div>\n<!-- /wp:cover -->",
		$src, $id, $json, $fixed ? ' has-parallax' : '', $image, $text
	);
}

function media_text_block( $id, $alt, $text ) {
	return sprintf(
		"<!-- wp:media-text {\"mediaId\":%d,\"mediaType\":\"image\"} -->\n<div class=\"wp-block-media-text alignwide is-stacked-on-mobile\"><figure class=\"wp-block-media-text__media\"><img src=\"%s\" alt=\"%s\" class=\"wp-image-%d size-full\"/></figure><div class=\"wp-block-media-text__content\"><!-- wp:paragraph -->\n<p>%s</p>\n<!-- /wp:paragraph --></div></div>\n<!-- /wp:media-text -->",
		$id, wp_get_attachment_url( $id ), esc_attr( $alt ), $id, $text
	);
}

function classic_image( $id, $alt ) {
	return sprintf( '<img class="alignnone size-full wp-image-%d" src="%s" alt="%s" width="480" height="320" />', $id, wp_get_attachment_url( $id ), esc_attr( $alt ) );
}

// 30 posts, pages and patterns. Returns their ids by name.
function demo_posts( $media ) {
	$id    = function ( $name ) use ( $media ) {
		return $media[ $name ];
	};
	$blocks  = array(
		'one-image'      => image_block( $id( 'boats' ), '' ),
		'thumbnail'      => image_block( $id( 'hall' ), '', 'medium' ),
		'other-alt'      => image_block( $id( 'alps' ), 'The view from our hut' ),
		'decorated'      => paragraph( 'Tea &amp; cake -- and "quotes"' ) . "\n\n" . image_block( $id( 'cup' ), '' ),
		'gallery'        => gallery_block( array( $id( 'moose' ), $id( 'sheep' ), $id( 'wren' ) ), array( '', 'Sheep on a hill', '' ) ),
		'old-gallery'    => old_gallery_block( array( $id( 'igloo' ), $id( 'windmill' ) ), array( '', '' ) ),
		'cover'          => cover_block( $id( 'canyon' ), '', 'The canyon' ),
		'cover-fixed'    => cover_block( $id( 'rocket' ), '', 'Lift-off', true ),
		'media-text'     => media_text_block( $id( 'astronaut' ), '', 'She flew twice.' ),
		'custom-html'    => "<!-- wp:html -->\n<p><img src=\"" . wp_get_attachment_url( $id( 'pan' ) ) . "\"></p>\n<!-- /wp:html -->",
		'twice'          => image_block( $id( 'boats' ), '' ) . "\n\n" . paragraph( 'And once more:' ) . "\n\n" . image_block( $id( 'boats' ), '' ),
		'foreign-id'     => str_replace( 'wp-image-' . $id( 'cat' ), 'wp-image-' . $id( 'moose' ), image_block( $id( 'cat' ), '' ) ),
		'nested'         => "<!-- wp:group {\"layout\":{\"type\":\"constrained\"}} -->\n<div class=\"wp-block-group\">" . image_block( $id( 'coffee' ), '' ) . "</div>\n<!-- /wp:group -->",
	);
	$classic = array(
		'classic'         => "A walk along the coast.\n\n" . classic_image( $id( 'photographer' ), '' ) . "\n\nThe end.",
		'classic-caption' => '[caption id="attachment_' . $id( 'cat' ) . '" align="alignnone" width="480"]' . classic_image( $id( 'cat' ), '' ) . " Our cat[/caption]\n\nShe sleeps.",
		'classic-alt'     => 'Look: ' . classic_image( $id( 'sheep' ), 'Four sheep' ),
		'classic-gallery' => '[gallery ids="' . $id( 'moose' ) . ',' . $id( 'wren' ) . '"]',
		'classic-none'    => "<p>No <code>alt</code> here: <img src='" . wp_get_attachment_url( $id( 'hall' ) ) . "'></p>",
	);
	$made = array();
	$add  = function ( $name, $content, $more = array() ) use ( &$made ) {
		$made[ $name ] = wp_insert_post( wp_slash( $more + array(
			'post_title'   => ucfirst( str_replace( '-', ' ', $name ) ),
			'post_name'    => $name,
			'post_content' => $content,
			'post_status'  => 'publish',
			'post_author'  => username_exists( 'admin' ),
		) ), true );
	};
	foreach ( $blocks + $classic as $name => $content ) {
		$add( $name, $content );
	}
	$add( 'about', image_block( $id( 'photographer' ), '' ), array( 'post_type' => 'page' ) );
	$add( 'contact', paragraph( 'Write to us.' ), array( 'post_type' => 'page' ) );
	$add( 'pattern', image_block( $id( 'windmill' ), '' ), array( 'post_type' => 'wp_block' ) );
	$add( 'with-pattern', '<!-- wp:block {"ref":' . $made['pattern'] . '} /-->' );
	$add( 'by-the-author', image_block( $id( 'wren' ), '' ), array( 'post_author' => username_exists( 'author' ) ) );
	$add( 'draft', image_block( $id( 'rocket' ), '' ), array( 'post_status' => 'draft' ) );
	$add( 'private', image_block( $id( 'igloo' ), '' ), array( 'post_status' => 'private' ) );
	$add( 'password', image_block( $id( 'pan' ), '' ), array( 'post_password' => 'secret' ) );
	$add( 'divi', '[et_pb_section][et_pb_row][et_pb_image src="' . wp_get_attachment_url( $id( 'cup' ) ) . '" alt="" /][/et_pb_row][/et_pb_section]' );
	$add( 'words', paragraph( 'Only words.' ) );
	$add( 'more-words', paragraph( 'Only words, again.' ) );
	$add( 'uncle', media_text_block( $id( 'moose' ), 'A moose', 'He came close.' ) );
	wp_update_post( array( 'ID' => $id( 'photographer' ), 'post_parent' => $made['about'] ) );
	return $made;
}
